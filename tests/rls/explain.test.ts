/** `npm run rls -- --explain`: each layer lets through and stops at least once. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { explain } from '../../tools/rls/explain.ts'
import type { ExplainRequest } from '../../tools/rls/explainArguments.ts'
import type { Command, CommandExplanation } from '../../tools/rls/explanation.ts'
import { freshDatabase } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'

const ada = '00000000-0000-4000-8000-00000000000a'
const grace = '00000000-0000-4000-8000-00000000000b'
const keeper = `keeper_${Deno.pid}`

let url: string
let sql: Sql

beforeAll(async () => {
  const db = await freshDatabase()
  url = db.url
  sql = openSql(url)
  await sql.unsafe(`
    create table public.notes (id bigint primary key, owner uuid references auth.users, body text);
    insert into public.notes values (1, '${ada}', 'a'), (2, '${ada}', 'b'), (3, '${grace}', 'c');
    alter table public.notes enable row level security;`)
})

afterAll(async () => {
  const [row] = await sql`select from pg_roles where rolname = ${keeper}`
  if (row) await sql.unsafe(`drop owned by ${keeper} cascade; drop role ${keeper}`)
})

async function ask(
  table: string,
  command: Command,
  as: string,
  more: Partial<ExplainRequest> = {},
): Promise<CommandExplanation> {
  const { commands } = await explain(url, { table, commands: [command], as, ...more })
  return commands[0]!
}

/** What stands in `before` holds for the work alone. */
async function having<T>(before: string, after: string, work: () => Promise<T>): Promise<T> {
  await sql.unsafe(before)
  try {
    return await work()
  } finally {
    await sql.unsafe(after)
  }
}

function layer({ layers }: CommandExplanation, name: string) {
  return layers.find((layer) => layer.name === name)
}

describe('the role', () => {
  test.each([
    ['ada@example.com', 'authenticated', ada],
    ['ADA@Example.com', 'authenticated', ada],
    [grace, 'authenticated', grace],
    ['anon', 'anon', undefined],
    ['service_role', 'service_role', undefined],
  ])('of %s is %s', async (as, role, userId) => {
    const { caller } = await explain(url, { table: 'notes', commands: ['select'], as })
    expect([caller.role, caller.userId, caller.claims['role'], caller.claims['sub']])
      .toEqual([role, userId, role, userId])
  })

  test('brings the claims along by which an admin is known, and no user can make themselves one', async () => {
    await sql`insert into public.orders (user_id, status, total_minor, currency) values (${ada}, 'paid', 1, 'EUR')`
    const seen = async (as: string, more = {}) =>
      (await ask('orders', 'select', as, more)).verdict.rows?.passed
    expect(await seen('ada@example.com')).toBe(1)
    expect(await seen('grace@example.com')).toBe(0)
    expect(await seen('admin@example.com')).toBe(1)
    expect(await seen('grace@example.com', { claims: { user_metadata: { role: 'admin' } } })).toBe(0)
    expect(await seen('grace@example.com', { claims: { app_metadata: { role: 'admin' } } })).toBe(1)
  })
})

describe('the schema', () => {
  test('stops whoever has no usage on it, though the table is granted', async () => {
    await sql.unsafe(
      `create schema walled; create table walled.things (id int); grant select on walled.things to anon`,
    )
    const { verdict } = await ask('walled.things', 'select', 'anon')
    expect(verdict).toMatchObject({
      outcome: 'refused',
      text: 'Refused with 42501: may not use schema walled',
      stoppedBy: 'schema',
      toAllow: ['grant usage on schema walled to anon;'],
    })
    await sql.unsafe(verdict.toAllow.join('\n'))
    expect((await ask('walled.things', 'select', 'anon')).verdict.outcome).toBe('all')
  })
})

describe('the grant', () => {
  test.each(['select', 'insert', 'update', 'delete'] as const)(
    'that is missing stops %s, and what it says is missing is all that is missing',
    async (command) => {
      const more = command === 'insert' ? { values: { id: 9, owner: ada } } : {}
      const before = await ask('public.notes', command, 'ada@example.com', more)
      expect(before.verdict).toMatchObject({ outcome: 'refused', stoppedBy: 'grant' })
      await having(
        before.verdict.toAllow.join('\n'),
        `revoke all on public.notes from authenticated; drop policy "Users ${command} their own rows" on public.notes`,
        async () => {
          const { verdict, layers } = await ask('public.notes', command, 'ada@example.com', more)
          expect(['all', 'some']).toContain(verdict.outcome)
          expect(verdict.letThroughBy).toEqual([`Users ${command} their own rows`])
          expect(layers.filter(({ state }) => state === 'stops')).toEqual([])
        },
      )
    },
  )

  test('is told when it comes from somewhere else', () =>
    having(
      'grant select on public.notes to public',
      'revoke select on public.notes from public',
      async () => {
        expect(layer(await ask('notes', 'select', 'anon'), 'grant')?.text).toBe(
          'select on public.notes, through public',
        )
      },
    ))

  test('of single columns lets those be written alone', () =>
    having(
      `grant select (id), update (body) on public.notes to authenticated;
       create policy "All may" on public.notes to authenticated using (true)`,
      `revoke all (id, body) on public.notes from authenticated; drop policy "All may" on public.notes`,
      async () => {
        const read = await ask('notes', 'select', 'ada@example.com')
        expect([layer(read, 'columns')?.text, read.verdict.outcome]).toEqual(['select of id alone', 'all'])
        const body = await ask('notes', 'update', 'ada@example.com', { values: { body: 'x' } })
        expect(body.verdict.outcome).toBe('all')
        const owner = await ask('notes', 'update', 'ada@example.com', { values: { body: 'x', owner: null } })
        expect(owner.verdict).toMatchObject({ outcome: 'refused', stoppedBy: 'columns' })
        expect(owner.verdict.text).toContain('no update of owner')
      },
    ))

  test('of a sequence is asked for where a default needs it', async () => {
    await sql.unsafe('create table public.counted (id serial, n int); grant insert on public.counted to anon')
    const { verdict } = await ask('counted', 'insert', 'anon')
    expect(verdict).toMatchObject({
      stoppedBy: 'sequence',
      toAllow: ['grant usage on sequence public.counted_id_seq to anon;'],
    })
    expect((await ask('counted', 'insert', 'anon', { values: { id: 1 } })).verdict.outcome).toBe('all')
    await sql.unsafe(verdict.toAllow.join('\n'))
    expect((await ask('counted', 'insert', 'anon')).verdict.outcome).toBe('all')
  })
})

describe('row level security', () => {
  test('that is off leaves everything to the grant, and says so', () =>
    having(
      'alter table public.notes disable row level security; grant delete on public.notes to anon',
      'alter table public.notes enable row level security; revoke delete on public.notes from anon',
      async () => {
        const explanation = await ask('notes', 'delete', 'anon')
        expect(layer(explanation, 'rls')).toMatchObject({
          state: 'warns',
          text: 'off: the grant alone decides',
        })
        expect(explanation.verdict).toMatchObject({ outcome: 'all', rows: { passed: 3, of: 3 } })
        expect(explanation.layers).toContainEqual({
          name: 'grant',
          state: 'warns',
          text: 'no select: refused with a WHERE or RETURNING',
        })
      },
    ))

  test('without a policy reaches nothing, without an error', () =>
    having('grant select on public.notes to anon', 'revoke select on public.notes from anon', async () => {
      const { verdict } = await ask('notes', 'select', 'anon')
      expect(verdict).toMatchObject({ outcome: 'none', stoppedBy: 'policies', rows: { passed: 0, of: 3 } })
      expect(verdict.text).toBe('Runs without an error and reaches no row: no policy lets anon select')
      expect(verdict.toAllow).toEqual([
        'create policy "Say who may select which rows" on public.notes for select to anon using (...);',
      ])
    }))

  test.each([
    ['service_role', 'on, but service_role bypasses it (BYPASSRLS)'],
    ['supabase_admin', 'on, but supabase_admin is a superuser'],
  ])(
    'does not hold %s',
    (as, text) =>
      having(
        'grant select on public.notes to service_role',
        'revoke select on public.notes from service_role',
        async () => {
          const explanation = await ask('notes', 'select', as)
          expect(layer(explanation, 'rls')?.text).toBe(text)
          expect([explanation.verdict.outcome, explanation.gates]).toEqual(['all', []])
        },
      ),
  )

  test('holds no owner, unless it is forced', async () => {
    await sql.unsafe(`
      create role ${keeper} nologin;
      grant ${keeper} to postgres;
      grant usage, create on schema public to ${keeper};
      create table public.kept (id int);
      insert into public.kept values (1);
      alter table public.kept owner to ${keeper};
      alter table public.kept enable row level security;`)
    const free = await ask('kept', 'select', keeper)
    expect([layer(free, 'rls')?.text, free.verdict.outcome])
      .toEqual([`on, but ${keeper} owns the table, and it is not forced`, 'all'])
    await sql.unsafe('alter table public.kept force row level security')
    const held = await ask('kept', 'select', keeper)
    expect([layer(held, 'rls')?.text, held.verdict.outcome])
      .toEqual(['on, and forced on its owner: policies decide', 'none'])
  })
})

describe('policies', () => {
  beforeAll(async () => {
    await sql.unsafe(`
      create table public.papers (id int primary key, owner uuid default auth.uid(), n int);
      insert into public.papers select g, case when g < 4 then '${ada}'::uuid else '${grace}' end, g from generate_series(1, 5) g;
      grant select, insert, update, delete on public.papers to authenticated;
      alter table public.papers enable row level security;
      create policy "Owners do as they like" on public.papers to authenticated using (owner = (select auth.uid()));
      create policy "The first is for all" on public.papers for select to public using (id = 1);
      create policy "Not for guests" on public.papers for select to anon using (true);
      create policy "Only with two factors" on public.papers as restrictive for delete to authenticated
          using ((select auth.jwt()) ->> 'aal' = 'aal2');`)
  })

  test('are asked one by one, and together', async () => {
    const { gates, verdict } = await ask('papers', 'select', 'grace@example.com')
    expect(gates).toMatchObject([{
      name: 'using',
      policies: [
        { name: 'Owners do as they like', for: 'all', roles: ['authenticated'], rows: { passed: 2, of: 5 } },
        { name: 'The first is for all', roles: ['public'], rows: { passed: 1, of: 5 } },
      ],
      forOthers: ['Not for guests'],
      rows: { passed: 3, of: 5 },
    }])
    expect(verdict).toMatchObject({
      outcome: 'some',
      text: 'Allowed for 3 of 5 rows, by "Owners do as they like" and "The first is for all"',
    })
  })

  test('that are restrictive stop what others let through', async () => {
    const { gates, verdict } = await ask('papers', 'delete', 'ada@example.com')
    expect(gates.map(({ name }) => name)).toEqual(['using', 'select'])
    expect(verdict).toMatchObject({ outcome: 'none', stoppedBy: 'Only with two factors' })
    expect(verdict.text).toContain('the restrictive policy "Only with two factors" stops it')
    const proved = await ask('papers', 'delete', 'ada@example.com', { claims: { aal: 'aal2' } })
    expect(proved.verdict.rows).toEqual({ passed: 3, of: 5 })
  })

  test('for SELECT hide rows from an update, which is told', () =>
    having(
      `create policy "Hide the second" on public.papers as restrictive for select to authenticated using (id <> 2)`,
      'drop policy "Hide the second" on public.papers',
      async () => {
        const { gates, verdict } = await ask('papers', 'update', 'ada@example.com')
        expect(gates.map(({ name, rows }) => [name, rows?.passed, rows?.of]))
          .toEqual([['using', 3, 5], ['select', 2, 5], ['check', 2, 2]])
        expect(verdict.rows).toEqual({ passed: 2, of: 5 })
      },
    ))

  test('may look at other tables, under the policies that hold the caller there', async () => {
    await sql.unsafe(`
      create table public.pages (paper_id int, n int);
      insert into public.pages select g, g from generate_series(1, 5) g;
      grant select on public.pages to authenticated;
      alter table public.pages enable row level security;
      create policy "Seen with their paper" on public.pages to authenticated
          using (exists (select from public.papers where papers.id = paper_id));`)
    expect((await ask('pages', 'select', 'ada@example.com')).verdict.rows).toEqual({ passed: 3, of: 5 })
    expect((await ask('pages', 'select', 'grace@example.com')).verdict.rows).toEqual({ passed: 3, of: 5 })
  })

  test('may call what is in a schema that the caller cannot name', () =>
    having(
      `create schema inner_rooms;
       create function inner_rooms.may() returns boolean language sql stable as 'select auth.uid() is not null';
       grant execute on function inner_rooms.may to authenticated;
       create policy "By a function" on public.notes to authenticated using (inner_rooms.may());
       grant select on public.notes to authenticated`,
      'drop schema inner_rooms cascade; revoke select on public.notes from authenticated',
      async () => {
        expect((await ask('notes', 'select', 'ada@example.com')).verdict.outcome).toBe('all')
      },
    ))

  test('that raise an error are named, and the others still answer', () =>
    having(
      `create policy "Broken for one" on public.papers for select to authenticated using (1 / (n - 2) > 0)`,
      'drop policy "Broken for one" on public.papers',
      async () => {
        const { gates, verdict } = await ask('papers', 'select', 'ada@example.com')
        expect(verdict).toMatchObject({ outcome: 'fails', stoppedBy: 'Broken for one' })
        expect(verdict.text).toBe('Fails: policy "Broken for one": division by zero')
        expect(gates[0]?.policies.map(({ rows, error }) => rows?.passed ?? error)).toEqual([
          'division by zero',
          3,
          1,
        ])
      },
    ))

  test('that look at their own table are refused by PostgreSQL, which is told', () =>
    having(
      `create policy "In circles" on public.papers for select to authenticated
           using (exists (select from public.papers as other where other.id > papers.id))`,
      'drop policy "In circles" on public.papers',
      async () => {
        const { verdict } = await ask('papers', 'select', 'ada@example.com')
        expect(verdict.text).toBe(
          'Fails: policy "In circles": infinite recursion detected in policy for relation "papers"',
        )
      },
    ))
})
