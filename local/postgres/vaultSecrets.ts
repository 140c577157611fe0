/** What the database's own schedules need to call the functions: their address and a key, in Vault. */
import { withConnection } from './connect.ts'

/** Writes them, or changes them to these: a stack may come back on another port. `adminUrl` is the platform's own. */
export async function storeVaultSecrets(adminUrl: string, secrets: Record<string, string>): Promise<void> {
  await withConnection(adminUrl, 'vault', (sql) =>
    sql.begin(async (tx) => {
      // Two stacks on one database would both find nothing and both write.
      await tx`select pg_advisory_xact_lock(hashtextextended('holdfast vault secrets', 0))`
      for (const [name, value] of Object.entries(secrets)) {
        const [known] = await tx`select id from vault.secrets where name = ${name}`
        if (known === undefined) await tx`select vault.create_secret(${value}, ${name})`
        else await tx`select vault.update_secret(${known.id}, ${value})`
      }
    }))
}
