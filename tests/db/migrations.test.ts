/** Migrations, applied by the real Supabase CLI with the rights of a hosted project's `postgres`. */
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { applyMigrations, applySeed } from '../../local/postgres/migrations.ts'
import { preparePlatform } from '../../local/postgres/platform.ts'
import { openProject } from '../../local/project.ts'
import { generateTypes, typesPath } from '../../tools/databaseTypes.ts'
import { supabaseCli } from '../../tools/supabaseCli.ts'
import { emptyDatabase, type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { providedPostgres } from '../support/provided.ts'
import { openSql } from '../support/sql.ts'

const project = openProject()

onEachPostgres('the migrations', (pg) => {
  test('apply to an empty database as postgres, once, and the seed after them', async () => {
    const db = await emptyDatabase(pg.major)
    await preparePlatform({ adminUrl: db.adminUrl, jwtSecret: localKeys.jwtSecret })
    const files = await migrationFiles()
    expect(await applyMigrations(project, db.url)).toEqual({ applied: files })
    expect(await applyMigrations(project, db.url)).toEqual({ applied: [] })
    await applySeed(project, db.url)
    const rows = await openSql(db.adminUrl)`
      select relname from pg_class
      where relnamespace in ('public'::regnamespace, 'supabase_migrations'::regnamespace)
      and relkind in ('r', 'p', 'v') and relowner <> 'postgres'::regrole`
    expect(rows).toHaveLength(0)
  }, 30_000)

  describe('with the Supabase CLI', () => {
    let db: FreshDatabase

    beforeAll(async () => {
      db = await freshDatabase(pg.major)
    })

    test('`db advisors` has no warnings', async () => {
      await supabaseCli(project, ['db', 'advisors', '--level=warn', '--fail-on=warn'], db.url)
    })

    test('`gen types` gives what is in the repository: run `npm run types` where this fails', async () => {
      expect(await Deno.readTextFile(join(project.root, typesPath))).toBe(
        await generateTypes(project, db.url),
      )
    })
  })
})

test('`supabase db lint` finds nothing in our functions', async ({ skip }) => {
  const server = providedPostgres().find(({ source }) => source === 'installed')
  const db = await freshDatabase(server?.major)
  const admin = openSql(db.adminUrl)
  const [found] = await admin`select from pg_available_extensions where name = 'plpgsql_check'`
  skip(found === undefined, 'plpgsql_check is not installed, nor can it be')
  // A hosted project lets `postgres` create it; here it wants a superuser.
  await admin`create extension plpgsql_check with schema extensions`
  await supabaseCli(project, ['db', 'lint', '--level=warning', '--fail-on=warning'], db.url)
})

async function migrationFiles(): Promise<string[]> {
  const entries = await Array.fromAsync(Deno.readDir(project.migrationsDir))
  return entries.map((entry) => entry.name).filter((name) => name.endsWith('.sql')).sort()
}
