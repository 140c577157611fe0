/**
 * A second, naive record of every change, to count the audit trail against: one row trigger in plain plpgsql that
 * notes old and new row whole. It knows nothing of the trail, and shares its transactions.
 */
import type { Sql } from './sql.ts'

/** What the mirror noted, in the order of the notes. */
export interface Noted {
  transactionId: string
  /** The name the mirror was put up under, whatever the table is called by now. */
  table: string
  operation: 'INSERT' | 'UPDATE' | 'DELETE' | 'TRUNCATE'
  old: Row | null
  new: Row | null
}

export type Row = Record<string, unknown>

/** Run it as the superuser. */
export async function createMirror(admin: Sql): Promise<void> {
  await admin.unsafe(`
    create schema mirror;
    create table mirror.notes (
      nth bigint generated always as identity,
      transaction_id bigint not null default txid_current(),
      name text not null,
      operation text not null,
      old jsonb,
      new jsonb
    );
    create function mirror.note() returns trigger language plpgsql security definer as $$
    begin
      insert into mirror.notes (name, operation, old, new) values (
        tg_argv[0],
        tg_op,
        case when tg_op in ('UPDATE', 'DELETE') then to_jsonb(old) end,
        case when tg_op in ('UPDATE', 'INSERT') then to_jsonb(new) end
      );
      return null;
    end $$;
    grant usage on schema mirror to public;
    grant execute on function mirror.note() to public;`)
}

/** `truncates`: the tables below it that a statement may truncate, too; a trigger of a statement is not inherited. */
export async function mirrorTable(admin: Sql, table: string, truncates: string[] = []): Promise<void> {
  await admin.unsafe(`
    create trigger zz_mirror after insert or update or delete on public.${table}
      for each row execute function mirror.note(${table})`)
  for (const truncated of [table, ...truncates]) {
    await admin.unsafe(`
      create trigger zz_mirror_truncate after truncate on public.${truncated}
        for each statement execute function mirror.note(${truncated})`)
  }
}

export async function readMirror(admin: Sql): Promise<Noted[]> {
  return [
    ...await admin<Noted[]>`
    select transaction_id as "transactionId", name as table, operation, old, new
    from mirror.notes order by nth`,
  ]
}
