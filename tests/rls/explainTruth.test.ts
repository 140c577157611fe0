/**
 * What `npm run rls -- --explain` says, beside what PostgreSQL does: tables with policies made up by chance, statements
 * that are really run (and rolled back), and the same number of rows, or the same refusal.
 */
import fc from 'fast-check'
import { beforeAll, expect, test } from 'vitest'
import { explain } from '../../tools/rls/explain.ts'
import { type Command, type CommandExplanation, commands } from '../../tools/rls/explanation.ts'
import { freshDatabase } from '../support/database.ts'
import { asCaller, type Caller, openSql, type Queries, type Sql, user } from '../support/sql.ts'

const ada = '00000000-0000-4000-8000-00000000000a'
const grace = '00000000-0000-4000-8000-00000000000b'
const rolledBack = new Error('rolled back')

let sql: Sql
let url: string

beforeAll(async () => {
  const db = await freshDatabase()
  url = db.url
  sql = openSql(url)
  await sql.unsafe(`
    create table public.items (id int primary key default 99, owner uuid default auth.uid(), n int not null);
    create table public.lent (item_id int, to_user uuid);
    create table public.hidden (item_id int);
    create function public.closed() returns boolean language sql as 'select true';
    insert into public.items select g, case g % 3 when 0 then '${ada}'::uuid when 1 then '${grace}' end, g
        from generate_series(1, 12) as g;
    insert into public.lent select g, '${ada}' from generate_series(1, 12, 2) as g;
    insert into public.hidden values (1);
    alter table public.lent enable row level security;
    create policy "Whoever borrows sees it" on public.lent for select to authenticated
        using (to_user = (select auth.uid()) and item_id < 9);
    grant select on public.lent to authenticated, anon;
    grant select, insert, update, delete on public.items to authenticated, anon, service_role;
    alter table public.items enable row level security;`)
})

const policy = fc.record({
  kind: fc.constantFrom('permissive', 'permissive', 'restrictive'),
  command: fc.constantFrom('all', 'all', 'select', 'insert', 'update', 'delete'),
  roles: fc.constantFrom('authenticated', 'anon', 'public', 'anon, authenticated', 'service_role'),
  using: fc.constantFrom(
    'true',
    'true',
    'owner = (select auth.uid())',
    'owner is distinct from auth.uid()',
    'n > 3',
    'n < 10 and items.id <> 5',
    'false',
    'null',
    'exists (select from public.lent where lent.item_id = items.id)',
    '(select holdfast.is_admin()) or n % 2 = 0',
    'public.row_is_even(items)',
    // Closed to the caller, who fails of it; so does a policy that asks its own table.
    'exists (select from public.hidden where item_id = id)',
    'public.closed()',
    'exists (select from public.items as other where other.n > items.n)',
  ),
  check: fc.constantFrom(undefined, 'true', 'n < 100', 'owner = (select auth.uid())'),
})
type MadePolicy = typeof policy extends fc.Arbitrary<infer T> ? T : never

const callers: Record<string, { caller: Caller; as: string }> = {
  ada: { caller: user(ada), as: 'ada@example.com' },
  grace: { caller: user(grace), as: grace },
  admin: {
    caller: user('00000000-0000-4000-8000-00000000000c', { app_metadata: { role: 'admin' } }),
    as: 'admin@example.com',
  },
  anon: { caller: { role: 'anon' }, as: 'anon' },
  service: { caller: { role: 'service_role' }, as: 'service_role' },
}
const statements: Record<Command, (tx: Queries, values: Values) => Promise<{ count: number }>> = {
  select: (tx) => tx`select id from public.items`,
  insert: (tx, { n, owner }) => tx`insert into public.items (n, owner) values (${n}, ${owner})`,
  update: (tx, { n, owner }) => tx`update public.items set n = ${n}, owner = ${owner} where n is not null`,
  delete: (tx) => tx`delete from public.items where n is not null`,
}
interface Values {
  n: number
  owner: string
}

test(
  'explain() counts what a statement reaches, whatever the policies, and says which it is refused',
  async () => {
    await sql.unsafe(
      `create function public.row_is_even(items public.items) returns boolean language sql stable
    as 'select items.n % 2 = 0'; grant execute on function public.row_is_even to public;`,
    )
    const seen = new Set<string>()
    await fc.assert(
      fc.asyncProperty(
        fc.array(policy, { maxLength: 4 }),
        fc.constantFrom(...Object.keys(callers)),
        fc.record({ n: fc.constantFrom(5, 200), owner: fc.constantFrom(ada, grace) }),
        async (policies, name, values) => {
          await replacePolicies(policies)
          const { caller, as } = callers[name]!
          const answer = await explain(url, { table: 'public.items', commands, as, values })
          for (const explanation of answer.commands) {
            const { command } = explanation
            const happened = await run(caller, (tx) => statements[command](tx, values))
            expect([command, explained(explanation)]).toEqual([command, happened])
            seen.add(`${command} ${explanation.verdict.outcome}`)
          }
        },
      ),
      {
        numRuns: 30,
        seed: 77,
        endOnFailure: true,
      },
    )
    // The made-up policies reach what they were made up for.
    expect([...seen].sort()).toEqual([
      ...['all', 'fails', 'none', 'some'].map((outcome) => `delete ${outcome}`),
      ...['all', 'fails', 'refused'].map((outcome) => `insert ${outcome}`),
      ...['all', 'fails', 'none', 'some'].map((outcome) => `select ${outcome}`),
      ...['all', 'fails', 'none', 'refused', 'some'].map((outcome) => `update ${outcome}`),
    ])
  },
  60_000,
)

/** Rows, or that it is refused, or that it fails otherwise. */
function explained({ command, verdict }: CommandExplanation): number | string {
  if (verdict.outcome === 'fails') return 'fails'
  if (verdict.outcome === 'refused') return 'refused'
  return command === 'insert' ? 1 : verdict.rows?.passed ?? -1
}

async function run(
  caller: Caller,
  statement: (tx: Queries) => Promise<{ count: number }>,
): Promise<number | string> {
  let count = -1
  try {
    await asCaller(sql, caller, async (tx) => {
      count = (await statement(tx)).count
      throw rolledBack
    })
  } catch (error) {
    if (error === rolledBack) return count
    const { code, message } = error as { code: string; message: string }
    return code === '42501' && message.includes('row-level security') ? 'refused' : 'fails'
  }
  return count
}

async function replacePolicies(policies: readonly MadePolicy[]): Promise<void> {
  const old = await sql`select polname from pg_policy where polrelid = 'public.items'::regclass`
  for (const { polname } of old) await sql`drop policy ${sql(polname)} on public.items`
  for (const [nth, { kind, command, roles, using, check }] of policies.entries()) {
    const clauses = [
      command === 'insert' ? '' : `using (${using})`,
      command === 'insert' ? `with check (${check ?? using})` : '',
      check !== undefined && (command === 'all' || command === 'update') ? `with check (${check})` : '',
    ]
    await sql.unsafe(
      `create policy "policy ${nth}" on public.items as ${kind} for ${command} to ${roles} ${
        clauses.join(' ')
      }`,
    )
  }
}
