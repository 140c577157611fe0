/** A person's day with the local stack: start, look, order, read logs, have things killed, reset, stop. */
import postgres from 'postgres'
import { beforeAll, expect, test } from 'vitest'
import { processStartOf, readState } from '../../local/state.ts'
import { waitFor } from '../support/wait.ts'
import { Checkout, type CommandResult, type StatusKeys } from './support/checkout.ts'

let checkout: Checkout
let started: CommandResult
let status: StatusKeys

beforeAll(async () => {
  checkout = await Checkout.open()
  started = await checkout.start()
  expect(started, started.stderr).toMatchObject({ code: 0 })
  status = await checkout.status()
}, 60_000)

test('npm start -- --detach prints addresses, keys, demo users and how long it took', () => {
  const { stdout } = started
  expect(stdout).toMatch(/Holdfast is ready in \d+\.\d s/)
  for (const value of [status.API_URL, status.FUNCTIONS_URL, status.PAYMENTS_URL, status.DB_URL]) {
    expect(stdout).toContain(value)
  }
  for (const value of [status.PUBLISHABLE_KEY, status.SECRET_KEY, status.JWT_SECRET]) {
    expect(stdout).toContain(value)
  }
  for (const { email, password } of status.DEMO_USERS) {
    expect(stdout).toMatch(new RegExp(`${email} +${password}`))
  }
})

test('npm run status -- --json has the keys of supabase status, and ports that follow --port', () => {
  const { port } = checkout
  expect(status).toMatchObject({
    API_URL: `http://127.0.0.1:${port}`,
    FUNCTIONS_URL: `http://127.0.0.1:${port}/functions/v1`,
    DB_URL: `postgresql://postgres:postgres@127.0.0.1:${port + 1}/postgres`,
    PAYMENTS_URL: `http://127.0.0.1:${port + 9}`,
    PUBLISHABLE_KEY: expect.stringMatching(/^sb_publishable_/),
    SECRET_KEY: expect.stringMatching(/^sb_secret_/),
    JWT_SECRET: expect.any(String),
  })
  expect(status.DEMO_USERS).toContainEqual({ email: 'ada@example.com', password: 'holdfast-ada' })
})

test('npm run status prints a table for people', async () => {
  const { code, stdout } = await checkout.run(['status'])
  expect(code).toBe(0)
  expect(stdout).toMatch(/Holdfast runs in the background/)
  expect(stdout).toMatch(new RegExp(`API URL +${status.API_URL}`))
})

test('the printed curl snippet places an order as pasted', async () => {
  const { code, stdout, stderr } = await checkout.paste(snippet('curl'))
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(JSON.parse(stdout)).toMatchObject({ success: true, data: { order: { status: 'paid' } } })
})

test('the printed supabase-js snippet places an order as pasted', async () => {
  const { code, stdout, stderr } = await checkout.paste(snippet('supabase-js'))
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toMatch(/success: true/)
  expect(stdout).toMatch(/status: "paid"/)
})

test('npm run logs -- orders shows what the function wrote, and nothing of others', async () => {
  const { code, stdout } = await checkout.run(['logs', 'orders', '--lines', '50'])
  expect(code).toBe(0)
  expect(stdout).toMatch(/ orders \{.*POST \/orders 201/)
  expect(stdout).not.toMatch(/ stack /)
})

test('npm run logs -- orders --follow goes on as lines are written', async () => {
  const following = checkout.follow(['logs', 'orders', '--follow', '--lines', '1'])
  await following.shows(' orders ')
  const before = following.text
  const { data, meta } = JSON.parse((await checkout.paste(snippet('curl'))).stdout)
  expect(data.order.status).toBe('paid')
  expect(before).not.toContain(meta.requestId)
  await following.shows(meta.requestId)
  following.stop()
  await following.end()
})

test('npm run logs -- stack shows what the API refused', async () => {
  const headers = { apikey: status.PUBLISHABLE_KEY }
  await (await fetch(`${status.API_URL}/rest/v1/nowhere`, { headers })).body?.cancel()
  await waitFor(
    async () => (await checkout.run(['logs', 'stack'])).stdout.includes("the table 'public.nowhere'"),
    { what: 'the refusal on the log of the stack', timeoutMs: 10_000, everyMs: 200 },
  )
})

test('npm run logs of a name without a log says which there are', async () => {
  const { code, stderr } = await checkout.run(['logs', 'nobody'])
  expect(code).toBe(1)
  expect(stderr).toMatch(/no log of "nobody"[\s\S]*There are: orders, stack, postgres/)
})

test('a second start says that one runs, shows its addresses and exits 0', async () => {
  const { code, stdout } = await checkout.run(['start'])
  expect(code).toBe(0)
  expect(stdout).toMatch(/runs already/)
  expect(stdout).toContain(status.API_URL)
})

test("the state file is its owner's alone", async () => {
  const { mode } = await Deno.stat(checkout.path('.local', 'state.json'))
  expect((mode ?? 0) & 0o777).toBe(0o600)
})

test('npm run doctor finds no problem', async () => {
  const { code, stdout } = await checkout.run(['doctor', '--json'])
  const { findings } = JSON.parse(stdout)
  expect(findings.filter((finding: { state: string }) => finding.state === 'problem')).toEqual([])
  expect(code).toBe(0)
})

test(
  'npm run doctor names a missing grant and one too many, with the statements that mend them',
  async () => {
    await asPostgres((sql) =>
      sql.unsafe('revoke select on public.products from anon; grant insert on public.products to anon')
    )
    const { code, stdout } = await checkout.run(['doctor', '--json'])
    expect(code).toBe(1)
    const problems = JSON.parse(stdout).findings.filter((finding: { state: string }) =>
      finding.state === 'problem'
    )
    expect(problems).toEqual([
      expect.objectContaining({ name: 'Missing grants', fix: 'grant select on public.products to anon;' }),
      expect.objectContaining({ name: 'Grants', fix: 'revoke insert on public.products from anon;' }),
    ])
    await asPostgres((sql) => sql.unsafe(problems.map(({ fix }: { fix: string }) => fix).join('\n')))
    expect(await checkout.run(['doctor', '--json'])).toMatchObject({ code: 0 })
  },
  30_000,
)

test('a killed PostgreSQL is started again', async () => {
  const server = (await checkout.processes()).find(({ command }) => /postgres -D /.test(command))
  Deno.kill(server?.pid ?? 0, 'SIGKILL')
  await waitFor(() => countOrders(), { what: 'PostgreSQL to answer again', timeoutMs: 15_000, everyMs: 100 })
  await waitFor(async () => (await checkout.paste(snippet('curl'))).stdout.includes('"success":true'), {
    what: 'orders to be placed again',
    timeoutMs: 10_000,
    everyMs: 200,
  })
}, 30_000)

test('after kill -9 of the stack status says so, and the next start recovers with the data', async () => {
  const before = await countOrders()
  const state = await readState(checkout.localDir)
  Deno.kill(state?.pid ?? 0, 'SIGKILL')
  await waitFor(async () => await processStartOf(state?.pid ?? 0) === undefined, {
    what: 'the stack to be gone',
  })
  expect(await checkout.run(['status'])).toMatchObject({ code: 1, stdout: '' })

  const again = await checkout.start()
  expect(again, again.stderr).toMatchObject({ code: 0 })
  expect(await countOrders()).toBe(before)
  expect((await checkout.paste(snippet('curl'))).stdout).toContain('"success":true')
}, 40_000)

test('npm run reset gives the running stack a fresh database at the same address', async () => {
  expect(await countOrders()).toBeGreaterThan(0)
  const { code, stderr } = await checkout.run(['reset'])
  expect({ code, stderr }).toMatchObject({ code: 0 })
  expect(await countOrders()).toBe(0)
  expect((await checkout.paste(snippet('curl'))).stdout).toContain('"success":true')
}, 40_000)

test('a reset with a broken migration says where, and another one mends it', async () => {
  const migration = checkout.path('supabase', 'migrations', '29990101000000_broken.sql')
  await Deno.writeTextFile(migration, 'select 1;\n\nselect nothing from nowhere;\n')
  const broken = await checkout.run(['reset'])
  expect(broken.code).toBe(1)
  expect(broken.stderr).toMatch(/29990101000000_broken\.sql[\s\S]*nowhere[\s\S]*29990101000000_broken\.sql:3/)
  expect(await checkout.run(['status'])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('reset failed'),
  })

  await Deno.remove(migration)
  const mended = await checkout.run(['reset'])
  expect(mended, mended.stderr).toMatchObject({ code: 0 })
  expect((await checkout.paste(snippet('curl'))).stdout).toContain('"success":true')
}, 40_000)

test('npm run stop leaves no process, and may be called again', async () => {
  expect(await checkout.run(['stop'])).toMatchObject({ code: 0 })
  await checkout.noProcesses()
  expect(await checkout.run(['status', '--json'])).toMatchObject({ code: 1, stdout: '' })
  expect(await checkout.run(['stop'])).toMatchObject({
    code: 0,
    stderr: expect.stringContaining('Nothing was running'),
  })
})

test('npm run reset removes the database of a stack that does not run', async () => {
  expect(await checkout.run(['reset'])).toMatchObject({ code: 0 })
  await expect(Deno.stat(checkout.path('.local', 'postgres'))).rejects.toThrow(Deno.errors.NotFound)
})

/** The lines between a snippet's title and the next blank line at its end, as they were printed. */
function snippet(tool: 'curl' | 'supabase-js'): string {
  const [, rest = ''] = started.stdout.split(`Place an order with ${tool}\n\n`)
  return tool === 'curl' ? rest.split('\n\n')[0] ?? '' : `${rest.split('\nEOF\n')[0]}\nEOF\n`
}

async function countOrders(): Promise<number> {
  const [row] = await asPostgres((sql) => sql`select count(*)::int as orders from public.orders`)
  return row?.orders
}

async function asPostgres<T>(work: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = postgres(status.DB_URL, { max: 1, connect_timeout: 2, onnotice() {} })
  try {
    return await work(sql)
  } finally {
    await sql.end({ timeout: 2 })
  }
}
