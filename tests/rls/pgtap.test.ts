/** The pgTAP files of supabase/tests, run by pg_prove as `supabase test db` runs them; and that they would notice. */
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { aptCanInstall } from '../../local/postgres/apt.ts'
import { type PgTapResult, providePgTap, runPgProve } from '../../local/postgres/pgtap.ts'
import { terminalProgress } from '../../local/progress.ts'
import { openProject } from '../../local/project.ts'
import { renderPgTap } from '../../tools/rls/renderPgTap.ts'
import { type FreshDatabase, freshDatabase } from '../support/database.ts'
import { providedPostgres } from '../support/provided.ts'
import { openSql } from '../support/sql.ts'

const folder = join(openProject().root, 'supabase/tests')
/** Packages come from a mirror. */
const installMs = 300_000

let installed: number | undefined
let files: string[]
let missing: string | undefined

beforeAll(async () => {
  const entries = await Array.fromAsync(Deno.readDir(folder))
  files = entries.map(({ name }) => name).filter((name) => name.endsWith('.sql')).sort()
  const server = providedPostgres().find(({ source }) => source === 'installed')
  installed = server?.major
  missing = server === undefined ? "npm's PostgreSQL has no pgTAP" : await providePgTap(
    { major: server.major, hasPgTap: await hasPgTap(server.adminUrl) },
    await terminalProgress(),
  )
}, installMs)

test('are there wherever apt-get can bring them, so that CI never leaves them out', async () => {
  const mustBeThere = Deno.env.has('CI') && await aptCanInstall()
  expect(mustBeThere ? missing : undefined).toBeUndefined()
})

test('the generated files are current: run `npm run rls -- --write` where this fails', async () => {
  const rendered = renderPgTap()
  for (const [name, text] of rendered) {
    expect(await Deno.readTextFile(join(folder, name)).catch(() => 'no such file'), name).toBe(text)
  }
  expect(files.filter((name) => name.startsWith('rls_'))).toEqual([...rendered.keys()].sort())
})

describe('pg_prove', () => {
  test('finds every assertion to hold on a migrated database, and leaves nothing there', async ({ skip }) => {
    skip(missing !== undefined, missing)
    const db = await freshDatabase(installed)
    const before = await counts(db)
    const { success, assertions, failures, output } = await prove(db)
    expect(failures).toEqual([])
    expect(success, output).toBe(true)
    expect(assertions).toBeGreaterThan(600)
    expect(await counts(db)).toEqual(before)
  }, 60_000)

  test('finds them to hold on a database that is in use', async ({ skip }) => {
    skip(missing !== undefined, missing)
    const db = await freshDatabase(installed)
    await openSql(db.adminUrl).unsafe(`
      insert into public.orders (user_id, status, total_minor, currency)
      select u.id, 'paid', 1, 'EUR' from auth.users as u, generate_series(1, 3);
      insert into public.order_items (order_id, product_id, sku, name, quantity, unit_price_minor)
      select o.id, p.id, p.sku, p.name, 1, 1 from public.orders as o, public.products as p;
      insert into holdfast.circuit_breakers (name) values ('payments')`)
    expect((await prove(db)).failures).toEqual([])
  }, 60_000)

  const shop = ['orders.test.sql', 'rls_public.test.sql']
  const breakages: [broken: string, statement: string, files: string[], sentences: string[]][] = [
    [
      'a policy lets everybody in',
      'create policy "Oh, everybody" on public.orders for select to authenticated using (true)',
      shop,
      [
        'other reads own rows alone of public.orders',
        'Table public.orders should have the correct policies',
        'Grace sees nothing of it',
      ],
    ],
    [
      'a policy forgets that rows are soft-deleted',
      'alter policy "Customers see their own orders, admins see all" on public.orders ' +
      'using (user_id = (select auth.uid()) or (select holdfast.is_admin()))',
      shop,
      ['owner reads own rows alone of public.orders', 'so she does not see it any more'],
    ],
    [
      'a policy forgets the orders of accounts that are gone',
      'alter policy "Customers see their own orders, admins see all" on public.orders ' +
      'using (deleted_at is null and (user_id = (select auth.uid()) or ' +
      '(user_id is not null and (select holdfast.is_admin()))))',
      shop,
      ['admin reads every row of public.orders', 'the books keep it, and an admin sees it'],
    ],
    [
      'a write is no longer refused, and silently does nothing',
      'grant update on public.orders to authenticated',
      shop,
      ['owner may not update public.orders', 'customers read orders, no more'],
    ],
    [
      'row level security is off',
      'alter table public.payments disable row level security',
      shop,
      [
        'row level security is on for every table of schema public',
        'other reads own rows alone of public.payments',
      ],
    ],
    [
      "a function is everybody's",
      'grant usage on schema private to anon; grant execute on function private.cancel_order(uuid) to anon',
      ['orders.test.sql', 'rls_private.test.sql'],
      ['anon may not use private.cancel_order(uuid)', 'guests do not get into schema private'],
    ],
    [
      'an order can be cancelled by whoever knows its id',
      `do $$ begin execute replace(
        pg_get_functiondef('private.cancel_order(uuid)'::regprocedure), 'and o.user_id = auth.uid()', ''
      ); end $$`,
      shop,
      ['and none of these calls has changed anything'],
    ],
    [
      'the books of Holdfast are granted to customers',
      'grant select on holdfast.idempotency_keys to authenticated',
      ['rls_holdfast.test.sql'],
      ['owner may not read holdfast.idempotency_keys'],
    ],
    [
      'the trail can be asked by everybody',
      'grant usage on schema audit to anon, authenticated; grant select on audit.database_changes to anon',
      ['rls_audit.test.sql'],
      ['anon may not read audit.database_changes'],
    ],
    [
      'a table and a function appear that nobody has thought of',
      'create table public.unnamed (id bigint); create function public.unnamed() returns int language sql return 1',
      shop,
      [
        'the declaration names every table and view of schema public',
        'the declaration names every function of schema public',
      ],
    ],
  ]

  test.for(breakages)('names the sentence that no longer holds when %s', { timeout: 60_000 }, async (
    [_, statement, names, sentences],
    { skip },
  ) => {
    skip(missing !== undefined, missing)
    const db = await freshDatabase(installed)
    await openSql(db.url).unsafe(statement)
    const { success, failures } = await prove(db, names)
    expect(success).toBe(false)
    expect(failures.map(({ sentence }) => sentence)).toEqual(expect.arrayContaining(sentences))
  })

  test('says so when a file breaks off', async ({ skip }) => {
    skip(missing !== undefined, missing)
    const db = await freshDatabase(installed)
    await openSql(db.url).unsafe('drop table public.payments')
    const { success, failures } = await prove(db, ['orders.test.sql'])
    expect([success, failures.length > 0]).toEqual([false, true])
  }, 60_000)
})

async function prove(db: FreshDatabase, names = files): Promise<PgTapResult> {
  return await runPgProve(db.url, names.map((name) => join(folder, name)))
}

async function counts(db: FreshDatabase): Promise<Record<string, unknown>> {
  const [row] = await openSql(db.adminUrl)`
    select
      (select count(*) from auth.users) as users,
      (select count(*) from public.products) as products,
      (select count(*) from public.orders) as orders,
      (select count(*) from holdfast.compensations) as compensations,
      (select count(*) from pg_extension where extname = 'pgtap') as extensions`
  return row!
}

async function hasPgTap(url: string): Promise<boolean> {
  const rows = await openSql(url)`select from pg_available_extensions where name = 'pgtap'`
  return rows.length > 0
}
