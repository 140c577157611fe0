/**
 * What a client of the load may do to the tables. Each says how many rows it changed, in which table; NaN where only
 * the server knows.
 */
import { pipeline } from 'node:stream/promises'
import type { LoadClient } from './auditLoadClient.ts'

type Rows = Record<string, number>
type Operation = (client: LoadClient) => Promise<Rows>

const words = ['plain', 'ünïcödé 🐘', "it''s", 'back\\slash "quote"', '', 'tab\tnew\nline', 'x'.repeat(3_000)]
const parentKeys = 60

const text = (c: LoadClient) => `'${c.random.pick(words)} ${c.random.between(1, 1e9)}'`
const list = (ids: readonly number[]) => ids.join(', ')

/** One statement on one table, whose own count is right. */
function statement(table: string, textOf: (client: LoadClient) => string): Operation {
  return async (client) => ({ [table]: await client.run(textOf(client)) })
}

const accounts: Record<string, Operation> = {
  'insert one': statement('load_accounts', (c) => `
    insert into public.load_accounts (id, note, amount, data, tags)
    values (${c.freshId()}, ${text(c)}, 1.50, '{"a": [1, null, {"b": "\\u00e9"}]}', '{a,"b c",null}')`),
  'insert many': statement('load_accounts', (c) => `
    insert into public.load_accounts (id, note)
    values ${
    Array.from({ length: c.random.between(2, 60) }, () => `(${c.freshId()}, ${text(c)})`).join(', ')
  }`),
  update: statement('load_accounts', (c) => `
    update public.load_accounts
    set n = n + 1, note = ${text(c)}, data = jsonb_build_object('n', n), tags = tags || array['more']
    where id in (${list(c.sharedIds(8))})`),
  delete: statement('load_accounts', (c) => `
    delete from public.load_accounts where id in (${list(c.sharedIds(3))})`),
  upsert: statement('load_accounts', (c) => `
    insert into public.load_accounts (id, note)
    values ${c.sharedIds(8).map((id) => `(${id}, ${text(c)})`).join(', ')}
    on conflict (id) do update set n = load_accounts.n + 1, note = excluded.note`),
  merge: statement('load_accounts', (c) => `
    merge into public.load_accounts t
    using (values ${c.sharedIds(8).map((id) => `(${id}, ${c.random.between(0, 3)})`).join(', ')}) s (id, n)
    on t.id = s.id
    when matched and s.n = 0 then delete
    when matched then update set n = t.n + s.n
    when not matched then insert (id, n) values (s.id, s.n)`),
  // Its count says nothing of what the CTE deleted.
  'delete and insert in one': uncounted(
    'load_accounts',
    statement('load_accounts', (c) => `
    with gone as (delete from public.load_accounts where id in (${list(c.sharedIds(3))}) returning n)
    insert into public.load_accounts (id, n) select ${c.freshId()}, coalesce(sum(n), 0) from gone`),
  ),
  async copy(c) {
    const rows = c.random.between(1, 60)
    const stream = await c.sql.unsafe('copy public.load_accounts (id, note) from stdin').writable()
    const lines = Array.from({ length: rows }, (_, row) => `${c.freshId()}\tcopied ${row}\n`)
    // A connection that is lost ends the stream without a word.
    await pipeline(lines, stream)
    return { load_accounts: rows }
  },
  async 'failure caught in plpgsql'(c) {
    // The first row stays; what the inner block did goes when it fails.
    const [kept, gone] = [c.freshId(), c.freshId()]
    await c.run(`
      do $$ begin
        insert into public.load_accounts (id, note) values (${kept}, 'kept');
        begin
          insert into public.load_accounts (id, note) values (${gone}, 'gone');
          update public.load_accounts set n = n + 1 where id = ${kept};
          raise exception 'on purpose';
        exception when raise_exception then null;
        end;
      end $$`)
    return { load_accounts: 1 }
  },
}

/** Children go with their parent, and lose a guardian: all of it by foreign keys. */
const families: Record<string, Operation> = {
  async 'add a family'(c) {
    const parents = c.sharedIds(3, parentKeys)
    const added = await c.run(`
      insert into public.load_parents (id) values ${parents.map((id) => `(${id})`).join(', ')}
      on conflict do nothing`)
    const children = parents.map((id) => `(${c.freshId()}, ${id}, ${c.random.pick([...parents, 'null'])})`)
    const born = await c.run(`
      insert into public.load_children (id, parent_id, guardian_id) values ${children.join(', ')}`)
    return { load_parents: added, load_children: born }
  },
  'choose a guardian': statement('load_children', (c) => `
    update public.load_children set n = n + 1, guardian_id = ${c.random.between(1, parentKeys)}
    where parent_id in (${list(c.sharedIds(3, parentKeys))})`),
  async 'delete a parent'(c) {
    const parent = c.random.between(1, parentKeys)
    const found = await c.run(`select from public.load_parents where id = ${parent} for update`)
    if (found === 0) return { load_parents: 0, load_children: 0 }
    // Locked, so that as many follow: with the parent, or to be without a guardian.
    const followers = await c.run(`
      select from public.load_children where ${parent} in (parent_id, guardian_id) order by id for update`)
    const deleted = await c.run(`delete from public.load_parents where id = ${parent}`)
    return { load_parents: deleted, load_children: followers }
  },
  'delete parents': uncounted(
    'load_children',
    statement('load_parents', (c) => `
    delete from public.load_parents where id in (${list(c.sharedIds(4, parentKeys))})`),
  ),
  'give a parent another key': uncounted(
    'load_children',
    statement('load_parents', (c) => `
    update public.load_parents set id = ${c.random.between(1, parentKeys)}, n = n + 1
    where id = ${c.random.between(1, parentKeys)}`),
  ),
  async 'truncate the families'(c) {
    if (c.random.chance(0.8)) return {}
    await c.run('truncate public.load_parents cascade')
    return {}
  },
}

/** Those with a partition of their own. The default one has the rest. */
const regions = (c: LoadClient) => ['a', 'b', 'c', ...c.knows('partition attached') ? ['late'] : []]
const region = (c: LoadClient) => c.random.pick([...regions(c), 'elsewhere'])

const parts: Record<string, Operation> = {
  'insert through the parent': statement('load_parts', (c) => `
    insert into public.load_parts (id, region, note)
    values ${c.sharedIds(5).map((id) => `(${id}, '${region(c)}', ${text(c)})`).join(', ')}
    on conflict (id, region) do update set n = load_parts.n + 1`),
  'insert into a partition': statement('load_parts', (c) => {
    const name = c.random.pick(regions(c))
    return `insert into public.load_parts_${name} (id, region, n) values (${c.freshId()}, '${name}', 1)`
  }),
  'update in partitions': statement('load_parts', (c) => `
    update public.load_parts set n = n + 1, note = ${text(c)} where id in (${list(c.sharedIds(8))})`),
  'update a partition': statement('load_parts', (c) => `
    update public.load_parts_${c.random.pick(['a', 'b', 'c', 'default'])} set n = n + 1
    where id in (${list(c.sharedIds(8))})`),
  'move between partitions': statement('load_parts', (c) => `
    update public.load_parts set region = '${region(c)}', n = n + 1 where id in (${list(c.sharedIds(3))})`),
  'delete through the parent': statement('load_parts', (c) => `
    delete from public.load_parts where id in (${list(c.sharedIds(4))})`),
  'delete from a partition': statement('load_parts', (c) => `
    delete from public.load_parts_b where id in (${list(c.sharedIds(4))})`),
  async 'truncate partitions'(c) {
    if (c.random.chance(0.8)) return {}
    await c.run(`truncate public.${c.random.pick(['load_parts', 'load_parts_a', 'load_parts_b'])}`)
    return {}
  },
}

const others: Record<string, Operation> = {
  'rotate keys': statement('load_swaps', (c) => {
    const ids = c.sharedIds(4, 60)
    const cases = ids.map((id, i) => `when ${id} then ${ids[(i + 1) % ids.length]}`).join(' ')
    return `update public.load_swaps set id = case id ${cases} end, note = ${text(c)} where id in (${
      list(ids)
    })`
  }),
  'insert a shape': statement('load_shapes', (c) => `
    insert into public.load_shapes (id, n) values (${c.freshId()}, 1), (${c.random.between(1, 60)}, 2)
    on conflict (id) do update set n = load_shapes.n + 1`),
  'update shapes': statement('load_shapes', (c) => `
    update public.load_shapes set n = n + 1 where id in (${list(c.sharedIds(6, 60))})`),
  'delete shapes': statement('load_shapes', (c) => `
    delete from public.load_shapes where id in (${list(c.sharedIds(2, 60))})`),
  'write a renamed table': statement('load_names', (c) => `
    insert into public.${c.random.pick(['load_names', 'load_renamed'])} as named (id, n)
    values ${c.sharedIds(5).map((id) => `(${id}, 1)`).join(', ')}
    on conflict (id) do update set n = named.n + 1`),
  'insert without a key': statement('load_keyless', (c) => `
    insert into public.load_keyless select ${c.random.between(1, 5)}, 'same' from generate_series(1, 3)`),
  'update without a key': statement('load_keyless', () => `
    update public.load_keyless set n = n + 1
    where ctid in (select ctid from public.load_keyless order by random() limit 2)`),
  'delete without a key': statement('load_keyless', () => `
    delete from public.load_keyless where ctid in (select ctid from public.load_keyless limit 2)`),
}

export const operations: [string, Operation][] = Object.entries({
  ...accounts,
  ...families,
  ...parts,
  ...others,
})

function uncounted(table: string, operation: Operation): Operation {
  return async (client) => ({ ...await operation(client), [table]: NaN })
}
