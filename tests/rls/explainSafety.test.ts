/** `npm run rls -- --explain` changes nothing, keeps nobody waiting, and says clearly what it cannot do. */
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { LocalError } from '../../local/errors.ts'
import { explain } from '../../tools/rls/explain.ts'
import { commands, type Explanation } from '../../tools/rls/explanation.ts'
import { type FreshDatabase, freshDatabase } from '../support/database.ts'
import { startPooler } from '../support/pooler.ts'
import { openSql, type Sql } from '../support/sql.ts'

const ada = '00000000-0000-4000-8000-00000000000a'

let db: FreshDatabase
let sql: Sql
let admin: Sql

beforeAll(async () => {
  db = await freshDatabase()
  sql = openSql(db.url)
  admin = openSql(db.adminUrl)
  await sql.unsafe(`
    create table public.papers (id serial primary key, owner uuid default auth.uid());
    insert into public.papers (owner) values ('${ada}'), (null);
    create function public.noted() returns boolean language plpgsql as
        'begin insert into public.papers default values; return true; end';
    grant execute on function public.noted to authenticated;
    grant select, insert, update, delete on public.papers to authenticated;
    grant usage on sequence public.papers_id_seq to authenticated;
    alter table public.papers enable row level security;
    create policy "Owners do as they like" on public.papers to authenticated using (owner = (select auth.uid()))`)
})

/** What could be different: each row of the catalog with its version, the sequences, the table. */
async function everything(): Promise<unknown> {
  const catalogs = [
    'class',
    'attribute',
    'attrdef',
    'policy',
    'namespace',
    'proc',
    'type',
    'rewrite',
    'depend',
  ]
  const versions = catalogs.map((name) =>
    `(select md5(string_agg(xmin::text || ctid::text, ',' order by ctid)) from pg_catalog.pg_${name}) as ${name}`
  )
  const [catalog] = await admin.unsafe(`select ${versions.join(', ')}`)
  const contents = await admin`select xmin, ctid, p.* from public.papers as p order by id`
  // The audit trail numbers the GRANT on our temporary views; the record is rolled back, its number is skipped.
  const sequences = await admin`
    select schemaname, sequencename, last_value from pg_sequences where schemaname <> 'audit' order by 1, 2`
  const trail = await admin`select count(*) from audit.database_changes`
  return { catalog, contents: [...contents], sequences: [...sequences], trail: [...trail] }
}

describe('nothing is changed', () => {
  test('by any question, answered or not', async () => {
    const before = await everything()
    for (const as of ['ada@example.com', 'admin@example.com', 'anon', 'service_role', 'postgres']) {
      await explain(db.url, { table: 'papers', commands, as, values: { owner: ada } })
    }
    await explain(db.url, { table: 'papers', commands, as: 'ada@example.com', row: '1' })
    await explain(db.url, { table: 'audit.database_changes', commands, as: 'anon' }).catch(() => {})
    await explain(db.url, { table: 'papers', commands, as: 'anon', values: { owner: 'x' } }).catch(() => {})
    expect(await everything()).toEqual(before)
  })

  test('by a policy that writes: it is refused, and named', async () => {
    await sql`create policy "Notes who asks" on public.papers for select to authenticated using (public.noted())`
    const before = await everything()
    const { commands: [select] } = await explain(db.url, {
      table: 'papers',
      commands: ['select'],
      as: 'ada@example.com',
    })
    expect(select?.verdict).toMatchObject({ outcome: 'fails', stoppedBy: 'Notes who asks' })
    expect(select?.verdict.text).toContain('cannot execute INSERT in a read-only transaction')
    expect(await everything()).toEqual(before)
    await sql`drop policy "Notes who asks" on public.papers`
  })

  test('and no connection is left', async () => {
    await expect(explain(db.url, { table: 'nothing', commands, as: 'anon' })).rejects.toThrow()
    const rows = await admin`
      select from pg_stat_activity where datname = ${db.name} and application_name = 'holdfast rls' and state <> 'idle'`
    expect(rows.count).toBe(0)
  })
})

test('a pooler in transaction mode makes no difference, and finds its connections clean', async ({ skip }) => {
  const pooler = await startPooler(db.url, 1)
  skip(pooler === undefined, 'PgBouncer cannot be had here')
  try {
    for (const as of ['ada@example.com', 'ada@example.com', 'anon']) {
      const { commands: [select] } = await explain(pooler!.url, { table: 'papers', commands: ['select'], as })
      expect(select?.verdict.outcome).toBe(as === 'anon' ? 'refused' : 'some')
    }
  } finally {
    await pooler!.close()
  }
})

describe('locks', () => {
  test('of writers are not waited for', async () => {
    await sql.begin(async (tx) => {
      await tx`update public.papers set owner = null`
      const { commands: [update] } = await explain(db.url, {
        table: 'papers',
        commands: ['update'],
        as: 'ada@example.com',
      })
      expect(update?.verdict.rows).toEqual({ passed: 1, of: 2 })
      await tx`update public.papers set owner = ${ada} where id = 1`
    })
  })

  test('of a migration are waited for shortly', async () => {
    await sql.begin(async (tx) => {
      await tx`lock table public.papers in access exclusive mode`
      await expect(explain(db.url, { table: 'papers', commands, as: 'anon' })).rejects.toMatchObject({
        message: expect.stringContaining('lock timeout'),
        fix: expect.stringContaining('try again'),
      })
    })
  })
})

describe('what cannot be explained', () => {
  const close = `closed_${Deno.pid}`
  afterAll(async () => {
    await admin.unsafe(`drop role if exists ${close}`)
  })

  test.each([
    ['a table that is not there', { table: 'public.paper' }, /no table "public\.paper"/, /public\.papers/],
    ['a name that is none', { table: 'a..b"' }, /no table "a\.\.b""/, /with its schema/],
    ['an empty schema', { table: '.papers' }, /no table/, /with its schema/],
    ['a sequence', { table: 'papers_id_seq' }, /no table and no view/, /Name a table/],
    [
      'a user who never signed up',
      { as: 'nobody@example.com' },
      /no user with the e-mail nobody/,
      /signed up/,
    ],
    ['an id of nobody', { as: '00000000-0000-4000-8000-0000000000ff' }, /no user with the id/, /signed up/],
    ['a role that is not there', { as: 'authenticted' }, /no role "authenticted"/, /anon.*service_role/],
  ])('%s is told', async (_, more, message, fix) => {
    const asked = explain(db.url, { table: 'papers', commands, as: 'anon', ...more })
    await expect(asked).rejects.toThrow(LocalError)
    await expect(asked).rejects.toMatchObject({
      message: expect.stringMatching(message),
      fix: expect.stringMatching(fix),
    })
  })

  test('two users with one e-mail are told apart by id', async () => {
    await admin.unsafe(`insert into auth.users (id, aud, role, email, is_sso_user)
      values (gen_random_uuid(), 'authenticated', 'authenticated', 'Ada@Example.com', true)`)
    await expect(explain(db.url, { table: 'papers', commands, as: 'ada@example.com' })).rejects.toMatchObject(
      {
        message: '2 users have the e-mail ada@example.com',
        fix: expect.stringContaining(ada),
      },
    )
    await admin`delete from auth.users where email = 'Ada@Example.com'`
  })

  test('a role in whose name nobody may ask is told', async () => {
    await admin.unsafe(`create role ${close} nologin`)
    await expect(explain(db.url, { table: 'papers', commands, as: close })).rejects.toMatchObject({
      message: expect.stringContaining(`Cannot ask in the name of ${close}: permission denied to set role`),
    })
  })

  test('whoever does not see all rows is told to connect as somebody else', async () => {
    const url = new URL(db.url)
    url.searchParams.set('options', '-c role=authenticated')
    await expect(explain(url.href, { table: 'papers', commands, as: 'anon' })).rejects.toMatchObject({
      message: 'Cannot explain public.papers as authenticated, who does not see all its rows',
    })
  })

  test.each([
    ['postgres://postgres:secret@127.0.0.1:1/postgres', '127.0.0.1:1/postgres'],
    ['postgres://postgres:secret@127.0.0.1:PORT/missing', '127.0.0.1:PORT/missing'],
    ['nonsense', '--db-url'],
  ])('%s is no database, and no password is shown', async (given, where) => {
    const withPort = (text: string) => text.replace('PORT', String(db.server.port))
    const asked = explain(withPort(given), { table: 'papers', commands, as: 'anon' })
    await expect(asked).rejects.toMatchObject({
      message: expect.stringMatching(/^Cannot reach the database: (?!.*secret)/),
      where: withPort(where),
    })
  })
})

describe('npm run rls', () => {
  async function rls(...args: string[]) {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ['run', '-A', 'tools/rls/main.ts', ...args],
      env: { HOLDFAST_LOCAL_DIR: `${inject('runDir')}/no-stack` },
      stdin: 'null',
    }).output()
    const [out = '', err = ''] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes))
    return { code, out, err }
  }

  test('explains for people, and for programs', async () => {
    const question = ['--explain', 'public.papers', 'update', '--as', 'ada@example.com', '--db-url', db.url]
    const people = await rls(...question)
    expect([people.code, people.err]).toEqual([0, ''])
    expect(people.out).toContain('✓ Allowed for 1 of 2 rows, by "Owners do as they like".')
    expect(people.out).not.toContain('\x1b')
    const programs = await rls(...question, '--json')
    const explanation: Explanation = JSON.parse(programs.out)
    expect(explanation.commands.map(({ command, verdict }) => [command, verdict.outcome])).toEqual([[
      'update',
      'some',
    ]])
  })

  test('says how it is used', async () => {
    const { code, out } = await rls()
    expect([code, out.split('\n')[0]]).toEqual([
      0,
      expect.stringContaining('Usage: npm run rls -- --explain TABLE'),
    ])
  })

  test('fails where no stack runs, and says what to do', async () => {
    const { code, out, err } = await rls('--explain', 'orders', '--as', 'anon')
    expect([code, out]).toEqual([1, ''])
    expect(err).toMatch(/the local stack does not run[^]*npm start -- --detach[^]*--db-url/)
  })
})
