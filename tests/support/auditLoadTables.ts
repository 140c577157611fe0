/** The tables that the audit trail is loaded with, each odd in one way. All are in `public` and audited by that. */
import { createMirror, mirrorTable } from './auditMirror.ts'
import type { Sql } from './sql.ts'

export interface LoadTable {
  /** The columns of its key; none where it has none. */
  key: string[]
  /** Other names under which its rows may be written: partitions, and what it is renamed to. */
  aliases: string[]
}

export const loadTables: Record<string, LoadTable> = {
  load_accounts: { key: ['id'], aliases: [] },
  load_parents: { key: ['id'], aliases: [] },
  load_children: { key: ['id'], aliases: [] },
  load_parts: {
    key: ['id', 'region'],
    aliases: ['load_parts_a', 'load_parts_b', 'load_parts_c', 'load_parts_late', 'load_parts_default'],
  },
  load_swaps: { key: ['id'], aliases: [] },
  load_shapes: { key: ['id'], aliases: [] },
  load_names: { key: ['id'], aliases: ['load_renamed'] },
  load_keyless: { key: [], aliases: [] },
}

/** Run it as the owner of the migrations, `postgres`, and the mirror as the superuser. */
export async function createLoadTables(owner: Sql, admin: Sql): Promise<void> {
  await owner.unsafe(`
    create table public.load_accounts (
      id bigint primary key,
      n int not null default 0,
      note text,
      amount numeric,
      data jsonb,
      tags text[],
      twice int generated always as (n * 2) stored
    );
    create table public.load_parents (id bigint primary key, n int not null default 0);
    create table public.load_children (
      id bigint primary key,
      parent_id bigint not null references public.load_parents (id) on update cascade on delete cascade,
      guardian_id bigint references public.load_parents (id) on update cascade on delete set null,
      n int not null default 0
    );
    create index on public.load_children (parent_id);
    create index on public.load_children (guardian_id);

    -- Two partitions have their columns in another order than the table: rows are converted on their way.
    create table public.load_parts (
      id bigint,
      region text,
      n int not null default 0,
      note text,
      primary key (id, region)
    ) partition by list (region);
    create table public.load_parts_a partition of public.load_parts for values in ('a');
    create table public.load_parts_b (note text, gone int, region text not null, n int not null default 0, id bigint not null);
    alter table public.load_parts_b drop column gone;
    alter table public.load_parts attach partition public.load_parts_b for values in ('b');
    create table public.load_parts_c partition of public.load_parts for values in ('c');
    create table public.load_parts_default partition of public.load_parts default;

    -- Deferrable, so that one statement may swap keys.
    create table public.load_swaps (id int primary key deferrable, note text);

    create table public.load_shapes (id bigint primary key, n int not null default 0, odd int default 1);
    create table public.load_names (id bigint primary key, n int not null default 0);
    create table public.load_keyless (n int, note text);`)
  for (const name of Object.keys(loadTables)) {
    await owner.unsafe(`grant select, insert, update, delete, truncate on public.${name} to authenticated`)
  }
  for (const name of ['a', 'b', 'c', 'default']) {
    await owner.unsafe(
      `grant select, insert, update, delete, truncate on public.load_parts_${name} to authenticated`,
    )
  }
  await createMirror(admin)
  for (const name of Object.keys(loadTables)) {
    await mirrorTable(
      admin,
      name,
      name === 'load_parts' ? ['load_parts_a', 'load_parts_b', 'load_parts_c'] : [],
    )
  }
  await owner`insert into public.load_swaps select n, 'swap ' || n from generate_series(1, 60) n`
}
