/** The tables that are written to, and the loops on the server that write: the same for every subject. */

export interface Table {
  name: string
  columns: number
  /** What one row takes, for an expression that is its id. */
  row(id: string): { into: string; values: string }
  /** What an update sets. */
  change: string
  create: string
}

/** As the shop's `orders`, with a note and an address; two of its rules and its index. */
export const orders: Table = {
  name: 'bench_orders',
  columns: 11,
  row: (id) => ({
    into: 'id, user_id, status, total_minor, currency, note, address',
    values: `${id}, '00000000-0000-4000-8000-00000000000a', 'paid', 12900, 'EUR', 'Ring twice, please',
      '{"street": "Am Kai 1", "city": "Hamburg", "country": "DE"}'`,
  }),
  change: `status = 'cancelled', cancelled_at = now(), updated_at = now()`,
  create: `
    create table public.bench_orders (
      id uuid primary key default gen_random_uuid(),
      user_id uuid,
      status text not null,
      total_minor bigint not null,
      currency text not null,
      note text,
      address jsonb,
      cancelled_at timestamptz,
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now(),
      deleted_at timestamptz,
      constraint status_is_known check (status in ('paid', 'cancelled')),
      constraint total_is_not_negative check (total_minor >= 0)
    );
    create index bench_orders_by_customer on public.bench_orders (user_id, created_at desc, id desc)`,
}

const texts = Array.from({ length: 14 }, (_, index) => `text_${index + 1}`)
const numbers = Array.from({ length: 8 }, (_, index) => `number_${index + 1}`)
const flags = Array.from({ length: 4 }, (_, index) => `flag_${index + 1}`)

/** As customers and products of grown applications are: thirty columns, of which a write changes two. */
export const wide: Table = {
  name: 'bench_wide',
  columns: 30,
  row: (id) => ({
    into: ['id', ...texts, ...numbers, ...flags, 'settings'].join(', '),
    values: [
      id,
      ...texts.map((name) => `'some words in ${name}'`),
      ...numbers.map((_, index) => String(1_000 + index)),
      ...flags.map(() => 'true'),
      `'{"theme": "dark", "language": "de", "newsletter": false}'`,
    ].join(', '),
  }),
  change: `text_1 = 'other words', updated_at = now()`,
  create: `
    create table public.bench_wide (
      id uuid primary key default gen_random_uuid(),
      ${texts.map((name) => `${name} text`).join(', ')},
      ${numbers.map((name) => `${name} bigint`).join(', ')},
      ${flags.map((name) => `${name} boolean not null default false`).join(', ')},
      settings jsonb,
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now()
    )`,
}

export const operations = ['insert', 'update', 'delete'] as const
export type Operation = (typeof operations)[number]

/**
 * The table, and for each operation a procedure that does it row by row, each a statement and a transaction of its own:
 * `call bench.insert_bench_orders(FROM, COUNT)`. What is done to which row is told by `bench.ids`.
 */
export function createTable(table: Table): string {
  const { into, values } = table.row('v_id')
  const statements: Record<Operation, string> = {
    insert: `insert into public.${table.name} (${into}) values (${values})`,
    update: `update public.${table.name} set ${table.change} where id = v_id`,
    delete: `delete from public.${table.name} where id = v_id`,
  }
  const procedures = operations.map((operation) => `
    create procedure bench.${operation}_${table.name}(p_from int, p_count int) language plpgsql as $$
    declare
      v_id uuid;
      v_ids uuid[] := array(
        select id from bench.ids where number > p_from and number <= p_from + p_count order by number);
    begin
      foreach v_id in array v_ids loop
        ${statements[operation]};
        commit;
      end loop;
    end $$;
    grant execute on procedure bench.${operation}_${table.name} to authenticated`)
  return `
    ${table.create};
    grant select, insert, update, delete on public.${table.name} to authenticated;
    ${procedures.join(';')}`
}

/** Keys at random, as an application makes them; the same order of writes for everybody. Nobody audits this table. */
export function createIds(count: number): string {
  return `
    create schema bench;
    grant usage on schema bench to authenticated;
    create table bench.ids (number int primary key, id uuid not null);
    grant select on bench.ids to authenticated;
    insert into bench.ids
    select number, md5(number::text)::uuid from generate_series(1, ${count}) as number;
    analyze bench.ids`
}

/** Rows beside those of `bench.ids`. */
export function fill(table: Table, count: number): string {
  const { into, values } = table.row('gen_random_uuid()')
  return `insert into public.${table.name} (${into}) select ${values} from generate_series(1, ${count})`
}
