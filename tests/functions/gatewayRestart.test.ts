import { join } from 'node:path'
import postgres from 'postgres'
import { afterAll, expect, inject, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { resolvePostgres } from '../../local/postgres/binaries.ts'
import { Cluster } from '../../local/postgres/cluster.ts'
import { preparePlatform } from '../../local/postgres/platform.ts'
import { silentProgress } from '../../local/progress.ts'
import { startStack } from '../../local/stack.ts'
import { fixtureProject } from '../fixtures/hostProject.ts'
import { closeAfterFile } from '../support/leftovers.ts'
import { waitFor } from '../support/wait.ts'

const cluster = await Cluster.open({
  binaries: await resolvePostgres(silentProgress),
  directory: join(inject('runDir'), `restart-${Deno.pid}`),
  port: freePort(),
})
closeAfterFile({ name: 'a cluster of its own', close: () => cluster.destroy() })
await cluster.start()
await preparePlatform({ adminUrl: cluster.adminUrl(), jwtSecret: localKeys.jwtSecret })

const stack = await startStack({
  project: fixtureProject,
  port: 0,
  databaseUrl: cluster.url(),
  adminUrl: cluster.adminUrl(),
})
closeAfterFile({ name: 'the stack on it', close: () => stack.close() })
const headers = { apikey: localKeys.publishable }

async function statusOf(path: string): Promise<number> {
  const response = await fetch(`${stack.url}${path}`, { headers })
  await response.body?.cancel()
  return response.status
}

test('while the database is away the API answers 5xx in JSON, the page says so, and functions go on', async () => {
  await createTable('before')
  await waitFor(async () => await statusOf('/rest/v1/before') === 200, { what: 'the table' })
  await cluster.stop('fast')
  const response = await fetch(`${stack.url}/rest/v1/before`, { headers })
  expect(response.status).toBeGreaterThanOrEqual(500)
  expect(await response.json()).toMatchObject({ message: expect.any(String) })
  expect(await (await fetch(stack.url)).text()).toMatch(/Database<\/th><td><strong>down/)
  expect(await statusOf('/functions/v1/echo')).toBe(200)
})

test('once it is back everything is: the API, schema changes, and what net queued', async () => {
  await cluster.start()
  await waitFor(async () => await statusOf('/rest/v1/before') === 200, { what: 'the API' })
  await createTable('after')
  await waitFor(async () => await statusOf('/rest/v1/after') === 200, { what: 'the schema change' })
  const sql = postgres(cluster.url(), { max: 1, onnotice() {} })
  afterAll(() => sql.end())
  const [queued] = await sql`select net.http_get(${`${stack.functionsUrl}/echo`}) as id`
  const [answer] = await waitFor(async () => {
    const rows = await sql`select status_code from net._http_response where id = ${queued?.id}`
    return rows.length > 0 ? rows : undefined
  }, { what: 'the answer' })
  expect(answer).toEqual({ status_code: 200 })
})

/** Its event trigger tells the API, as when hosted. */
async function createTable(name: string): Promise<void> {
  const sql = postgres(cluster.url(), { max: 1, onnotice() {} })
  await sql.unsafe(
    `create table public.${name} (id integer primary key); grant select on public.${name} to anon`,
  )
  await sql.end()
}

function freePort(): number {
  const listener = Deno.listen({ hostname: '127.0.0.1', port: 0 })
  listener.close()
  return listener.addr.port
}
