/** The matrix on databases that were broken on purpose: each fault is reported, by the name of its cell. */
import { describe, expect, test } from 'vitest'
import { freshDatabase } from '../support/database.ts'
import { openSql } from '../support/sql.ts'
import { type RoleName, type TableRules, tables } from './matrix.ts'
import { declared, lines } from './support/report.ts'
import { rolledBack } from './support/rolledBack.ts'
import { runSqlMatrix, type SqlMatrixOptions } from './support/sqlMatrix.ts'

const admin = openSql((await freshDatabase()).adminUrl)

async function run(options: SqlMatrixOptions): Promise<string[]> {
  return lines((await rolledBack(admin, (tx) => runSqlMatrix(tx, options))).failures)
}

const usual = new Set(await run({ only: [] }))

/** What the matrix says of a database after these statements that it does not say without them. */
async function found(broken: string, only: string[], declaration = declared): Promise<string[]> {
  return (await run({ broken, only, declaration })).filter((line) => !usual.has(line))
}

const orders = ['public.orders']
const toAuthenticated = 'on public.orders to authenticated'

describe('a policy', () => {
  test('that lets everybody see every order is found for both customers', async () => {
    const failures = await found('create policy broken on public.orders for select using (true)', orders)
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.orders select as owner: reads too much: .*b3/),
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.orders select as other: reads too much: .*b1/),
    )
    expect(failures.filter((line) => line.includes('as anon'))).toEqual([])
  })

  test('that forgets the soft-deleted is found for the owner alone', async () => {
    const failures = await found(
      'create policy broken on public.orders for select to authenticated using (user_id = auth.uid())',
      orders,
    )
    expect(failures).toContainEqual(expect.stringMatching(/as owner: reads too much: \[[^\]]*, deleted\]$/))
    expect(failures.filter((line) => !line.includes('select as owner'))).toEqual([])
  })

  test('that lost a role, so that it reads too little, is found', async () => {
    const failures = await found('drop policy "Anybody may see what is sold" on public.products', [
      'public.products',
    ])
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.products select as anon: reads too little/),
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.products select as admin: reads too little/),
    )
  })

  test('that believes what users may write about themselves is found', async () => {
    const failures = await found(
      `create policy broken on public.orders for select to authenticated
          using (auth.jwt() -> 'user_metadata' ->> 'role' = 'admin')`,
      orders,
    )
    expect(failures).toContainEqual(expect.stringMatching(/^public\.orders select as other: reads too much/))
  })

  test('that is switched off with row level security is found, table and cells', async () => {
    const failures = await found('alter table public.payments disable row level security', [
      'public.payments',
    ])
    expect(failures).toContainEqual(expect.stringMatching(/^public\.payments: row level security is off/))
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.payments select as other: reads too much/),
    )
    expect(failures).toContainEqual(expect.stringMatching(/select as other: pg_stats: shows values/))
  })
})

test('a function that the planner takes for harmless is shown every row, and that is found', async () => {
  const failures = await found('alter function rls_spy.look(anyelement) leakproof', orders)
  expect(failures).toContainEqual(
    expect.stringMatching(/^public\.orders select as other: a function in WHERE: is shown too much: .*b1/),
  )
})

describe('a grant', () => {
  test.each(['insert', 'update', 'delete'])(
    'to %s is found although no policy lets a row through',
    async (command) => {
      const failures = await found(`grant ${command} ${toAuthenticated}`, orders)
      for (const role of ['owner', 'other', 'admin']) {
        expect(failures).toContain(
          `public.orders ${command} as ${role}: granted authenticated ${command}, ` +
            'and one policy away from being reached: revoke it',
        )
      }
      // A denied insert is 42501 either way; the other two run in silence.
      if (command === 'insert') return
      expect(failures).toContain(
        `public.orders ${command} as other: must be refused with 42501, yet it ran, gave 0 row(s) and changed nothing`,
      )
    },
  )

  test('with a policy lets rows be changed, and the rows are named', async () => {
    const failures = await found(
      `grant update ${toAuthenticated};
      create policy broken on public.orders for update to authenticated using (user_id = auth.uid())`,
      orders,
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.orders update as other: must be refused.*changed 1 row\(s\).*b3/),
    )
  })

  test('by which a violated key names a row that nobody may see is found', async () => {
    const failures = await found(
      `grant delete on public.products to authenticated;
      create policy broken on public.products for delete to authenticated using (true);
      grant insert on public.payments to authenticated;
      create policy broken on public.payments for insert to authenticated with check (true)`,
      ['public.products', 'public.payments'],
    )
    for (
      const line of [
        /^public\.products delete as other: must be refused with 42501, found 23503 .*still referenced/,
        /^public\.payments insert as other: of a row that exists: must be refused with 42501, found 23505/,
        /^public\.payments insert as other: of an orphan: must be refused with 42501, found 23503/,
        /^public\.payments insert as other: or do nothing: must be refused with 42501, yet it ran/,
      ]
    ) expect(failures).toContainEqual(expect.stringMatching(line))
  })

  test('of one column is found', async () => {
    const failures = await found(`grant update (status) ${toAuthenticated}`, orders)
    expect(failures).toContain(
      'public.orders: granted authenticated update (status), for which the matrix has no cell: revoke it',
    )
  })

  test('of truncate, which no policy holds, is found', async () => {
    const failures = await found(
      `grant truncate on public.products, public.orders, public.order_items, public.payments to authenticated`,
      ['public.payments'],
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.payments: granted authenticated truncate/),
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.payments delete as owner: truncate: must be refused.*changed 4 row/),
    )
  })

  test('to PUBLIC, of a sequence, of a schema, of a role are found', async () => {
    const failures = await found(
      `grant select on holdfast.cache_entries to public;
      grant usage on sequence holdfast.cache_tokens to authenticated;
      grant create on schema public to anon;
      grant service_role to anon`,
      ['holdfast.cache_entries', 'holdfast.cache_tokens'],
    )
    expect(failures).toContainEqual(expect.stringMatching(/^holdfast\.cache_entries: granted PUBLIC select/))
    expect(failures).toContainEqual(expect.stringMatching(/^holdfast\.cache_tokens use as owner: .*nextval/))
    expect(failures).toContain('roles: anon may create objects in schema public')
    expect(failures).toContain('roles: anon is a member of service_role')
  })

  test('of a partition is found, since the parent holds no policy over it', async () => {
    const failures = await found(
      `create table private.parts (at date) partition by range (at);
      create table private.parts_2026 partition of private.parts for values from ('2026-01-01') to ('2027-01-01');
      grant select on private.parts_2026 to authenticated`,
      [],
    )
    expect(failures).toContain(
      'private.parts_2026: a partition is reached through its parent only, yet granted: authenticated select',
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^private\.parts: this partitioned table is not declared/),
    )
    expect(failures.filter((line) => line.startsWith('private.parts_2026: this'))).toEqual([])
  })
})

describe('a name', () => {
  test('that the declaration does not know is reported with what to add', async () => {
    const failures = await found(
      `create table public.notes (id bigint generated always as identity);
      create view public.order_totals as select user_id, total_minor from public.orders;
      create function public.peek(integer, text[]) returns integer language sql set search_path = '' as 'select 1'`,
      [],
    )
    expect(failures).toContainEqual(expect.stringMatching(/^public\.notes: .*add 'public\.notes' to tables/))
    expect(failures).toContainEqual(expect.stringMatching(/^public\.order_totals: this view is not declared/))
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.notes_id_seq: this sequence is not declared/),
    )
    expect(failures).toContainEqual(
      expect.stringMatching(
        /^public\.peek\(integer,text\[\]\): .*add 'public\.peek\(integer,text\[\]\)' to functions/,
      ),
    )
    expect(failures).toContainEqual(expect.stringMatching(/^public\.peek.*: PUBLIC may execute it/))
  })

  test('that no longer exists is reported', async () => {
    const failures = await found(
      'drop function private.record_refund(uuid, text); drop table holdfast.cache_entries',
      [],
    )
    expect(failures).toContainEqual(
      expect.stringMatching(
        /^private\.record_refund\(uuid,text\): is declared in functions and does not exist/,
      ),
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^holdfast\.cache_entries: is declared in tables and does not exist/),
    )
  })

  test('without a row that shows something is reported', async () => {
    const declaration = {
      ...declared,
      tables: { ...tables, 'public.notes': rulesOf('public.orders') },
    }
    const failures = await found(
      `create table public.notes (id integer); alter table public.notes enable row level security;
      grant select on public.notes to authenticated, service_role`,
      ['public.notes'],
      declaration,
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.notes: it is reached by a role and has no row/),
    )
    expect(failures).toContainEqual(expect.stringMatching(/^public\.notes: it has no row of the other/))
  })
})

describe('a view', () => {
  test("that reads with its owner's rights is found, by option and by rows", async () => {
    const declaration = { ...declared, tables: { ...tables, 'public.seen_orders': rulesOf('public.orders') } }
    const failures = await found(
      'create view public.seen_orders as select * from public.orders; grant select on public.seen_orders to authenticated',
      ['public.seen_orders'],
      declaration,
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.seen_orders: reads with its owner's rights/),
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.seen_orders select as other: reads too much/),
    )
  })
})

describe('a function', () => {
  test('that anybody may execute is found by privilege and by call', async () => {
    const name = 'private.delete_order(uuid)'
    const failures = await found(
      `grant execute on function ${name} to anon; grant usage on schema private to anon`,
      [name],
    )
    expect(failures).toContain(
      `${name} execute as anon: denied is declared, yet the role has the privilege`,
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/delete_order\(uuid\) execute as anon: must be refused with 42501, found PT404/),
    )
  })

  test("that shows another's order since it runs with more rights is found", async () => {
    const name = 'private.order_as_json(uuid)'
    const failures = await found(`alter function ${name} security definer`, [name])
    expect(failures).toEqual([`${name} execute as other: shows the owner's order`])
  })

  test("that changes another's order is found", async () => {
    const name = 'private.delete_order(uuid)'
    const failures = await found(
      `create or replace function private.delete_order(p_order_id uuid) returns timestamptz
      language sql security definer set search_path = '' as $$
        update public.orders set deleted_at = now() where id = p_order_id returning deleted_at
      $$`,
      [name],
    )
    expect(failures).toContain(`${name} execute as other: changes rows that are not the caller's`)
    expect(failures).toContain(`${name} execute as admin: changes rows that are not the caller's`)
  })
})

describe('where customers may write their own', () => {
  const own = (command: string) => ({
    ...rulesOf('public.orders')[command as 'select'],
    owner: 'own',
    other: 'own',
  })
  const declaration = {
    ...declared,
    tables: {
      ...tables,
      'public.orders': {
        ...rulesOf('public.orders'),
        insert: own('insert'),
        update: own('update'),
      } as TableRules,
    },
  }
  const grants = `grant insert, update ${toAuthenticated};`

  test('a policy that checks whose row it is only before an update is found', async () => {
    const failures = await found(
      `${grants} create policy broken on public.orders for update to authenticated
          using (user_id = auth.uid() and deleted_at is null) with check (true)`,
      orders,
      declaration,
    )
    expect(failures).toContainEqual(
      expect.stringMatching(/^public\.orders update as owner: giving rows away: .*gave away .*b1/),
    )
  })

  test("a policy that takes rows in another's name is found", async () => {
    const failures = await found(
      `${grants} create policy broken on public.orders for insert to authenticated with check (true)`,
      orders,
      declaration,
    )
    expect(failures).toContainEqual(
      expect.stringMatching(
        /^public\.orders insert as owner: naming another as the row's owner: must be refused/,
      ),
    )
  })
})

function rulesOf(table: string): TableRules & Record<string, Record<RoleName, string>> {
  return tables[table] as never
}
