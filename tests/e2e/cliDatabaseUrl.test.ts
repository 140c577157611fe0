/** `npm start` on a database that is not ours: a bare server becomes the platform, a Supabase is left as it is. */
import postgres from 'postgres'
import { beforeAll, expect, test } from 'vitest'
import { Checkout } from './support/checkout.ts'

/** Plays the database server, and the Supabase that others run. */
let other: Checkout
let checkout: Checkout

beforeAll(async () => {
  other = await Checkout.open()
  checkout = await Checkout.open()
  const { code, stderr } = await other.start()
  expect({ code, stderr }).toMatchObject({ code: 0 })
}, 60_000)

test('a bare PostgreSQL is made into the platform, and an order goes through it', async () => {
  await asAdmin('create database bare')
  const env = { DATABASE_URL: adminUrl('bare') }
  const { code, stdout, stderr } = await checkout.start([], env)
  expect({ code, stderr }).toMatchObject({ code: 0 })
  expect(stdout).toContain(env.DATABASE_URL)
  expect(await placeOrder(stdout)).toMatchObject({ success: true })
  expect(await checkout.run(['stop'], env)).toMatchObject({ code: 0 })
  await expect(Deno.stat(checkout.path('.local', 'postgres'))).rejects.toThrow(Deno.errors.NotFound)
}, 60_000)

test(
  'a Supabase that runs is migrated and forwarded to, and our functions are served beside it',
  async () => {
    // What tells a real Supabase: its Auth server keeps its own list of migrations.
    await asAdmin('create table auth.schema_migrations (version text)')
    const { API_URL, DB_URL } = await other.status()
    const env = { DATABASE_URL: DB_URL, SUPABASE_URL: API_URL }
    const { code, stdout, stderr } = await checkout.start([], env)
    expect({ code, stderr }).toMatchObject({ code: 0 })
    expect(stdout).toMatch(/Supabase, PostgreSQL \d+ \(DATABASE_URL\)/)
    // Signing in is forwarded, the function runs here.
    expect(await placeOrder(stdout)).toMatchObject({ success: true })
    expect((await checkout.run(['logs', 'orders'])).stdout).toContain('POST /orders 201')
    expect(await checkout.run(['stop'], env)).toMatchObject({ code: 0 })
    await other.status()
  },
  60_000,
)

async function placeOrder(printed: string): Promise<unknown> {
  const [, rest = ''] = printed.split('Place an order with curl\n\n')
  return JSON.parse((await checkout.paste(rest.split('\n\n')[0] ?? '')).stdout)
}

function adminUrl(database: string): string {
  return `postgresql://supabase_admin:postgres@127.0.0.1:${other.port + 1}/${database}`
}

async function asAdmin(statement: string): Promise<void> {
  const sql = postgres(adminUrl('postgres'), { max: 1, onnotice() {} })
  await sql.unsafe(statement)
  await sql.end()
}
