/** What a role could make for itself to see or change more than it may. */
import { beforeAll, describe, expect, test } from 'vitest'
import { freshDatabase } from '../support/database.ts'
import { openSql, type Queries, type Sql } from '../support/sql.ts'
import { roles } from './matrix.ts'
import { attempt } from './support/attempt.ts'
import { ownersOrder, people } from './support/fixture.ts'
import { rolledBack } from './support/rolledBack.ts'
import { digestOf, seed } from './support/rows.ts'

const takeovers = [
  'create schema mine',
  'create role mine',
  'alter role current_user bypassrls',
  'alter table public.orders disable row level security',
  'create policy mine on public.orders using (true)',
  'drop policy "Customers see their own orders, admins see all" on public.orders',
  'create trigger mine before update on public.orders execute function holdfast.stamp_times()',
]

let admin: Sql
let schemas: string[]

beforeAll(async () => {
  admin = openSql((await freshDatabase()).adminUrl)
  const rows = await admin`
    select quote_ident(nspname) as name from pg_namespace where nspname !~ '^pg_(toast|temp)' order by 1`
  schemas = rows.map(({ name }) => name)
})

test.each(roles)('%s makes nothing in any schema', async (role) => {
  await rolledBack(admin, async (tx) => {
    for (const schema of schemas) {
      for (
        const statement of [
          `create function ${schema}.mine() returns integer language sql as 'select 1'`,
          `create table ${schema}.mine (id integer)`,
          `create view ${schema}.mine as select 1 as id`,
          `create type ${schema}.mine as (id integer)`,
        ]
      ) {
        const { error } = await attempt(tx, role, statement)
        expect([statement, error?.code]).toEqual([statement, '42501'])
      }
    }
    for (const statement of takeovers) {
      const { error } = await attempt(tx, role, statement)
      expect([statement, error?.code]).toEqual([statement, '42501'])
    }
    // Whoever may read a table and grants more than that is warned, not refused.
    const rights = (tx: Queries) => tx`select relacl from pg_class where relname = 'orders' and relkind = 'r'`
    const { seen } = await attempt(tx, role, 'grant all on public.orders to public', { look: rights })
    expect([...seen]).toEqual([...await rights(tx)])
  })
})

describe('temporary objects of the caller', () => {
  test('show a function in WHERE no more than the role may read', async () => {
    await rolledBack(admin, async (tx) => {
      await seed(tx)
      const { rows, error } = await attempt(
        tx,
        'other',
        `create function pg_temp.look(p_row text) returns boolean language plpgsql immutable cost 0.0001 as $$
        begin
            perform set_config('rls_spy.seen', concat(current_setting('rls_spy.seen', true), p_row, ' '), true);
            return true;
        end $$;
        select from public.orders where pg_temp.look(user_id::text);
        select current_setting('rls_spy.seen', true) as seen`,
      )
      expect(error).toBeUndefined()
      expect((rows.at(-1) as unknown as { seen: string }[])[0]?.seen.trim()).toBe(people.other)
    })
  })

  test('stand in for no table of a function that runs with more rights', async () => {
    await rolledBack(admin, async (tx) => {
      const tables = await seed(tx)
      const before = await digestOf(tx, tables)
      for (const call of ['delete_order', 'cancel_order']) {
        const { error, seen } = await attempt(
          tx,
          'other',
          `create temp table orders as
              select '${ownersOrder}'::uuid as id, '${people.other}'::uuid as user_id, 'paid' as status,
                  null::timestamptz as deleted_at, null::timestamptz as cancelled_at;
          create function pg_temp.uid() returns uuid language sql as $$ select '${people.owner}'::uuid $$;
          set local search_path = pg_temp, public;
          select private.${call}('${ownersOrder}')`,
          { look: (tx) => digestOf(tx, tables) },
        )
        expect([call, error?.code]).toEqual([call, 'PT404'])
        expect(seen).toBe(before)
      }
    })
  })
})
