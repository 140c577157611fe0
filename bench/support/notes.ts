/** What the benches of the database write: notes, each its author's own under row level security. */
import type { Actor, UserCaller } from '../../supabase/functions/_shared/core/caller.ts'
import type { Cluster } from '../../local/postgres/cluster.ts'
import { withConnection } from '../../local/postgres/connect.ts'

/** A customer of `supabase/seed.sql`. */
const userId = '00000000-0000-4000-8000-00000000000a'

/** Whom a verified access token of a project names, with the claims that are usual in one. */
export const caller: UserCaller = {
  kind: 'user',
  role: 'authenticated',
  userId,
  claims: {
    sub: userId,
    role: 'authenticated',
    aud: 'authenticated',
    email: 'ada@example.com',
    app_metadata: { provider: 'email', providers: ['email'] },
    exp: 4_102_444_800,
  },
}

/** As a route's context is one. */
export const actor: Actor = {
  caller,
  request: {
    requestId: '00000000-0000-4000-8000-0000000000ff',
    functionName: 'bench',
    method: 'POST',
    path: '/notes',
    ip: '127.0.0.1',
    userAgent: 'bench',
  },
}

export const noteText = 'Ropes and anchors hold what the tide would take'

export async function createNotes(database: Cluster): Promise<void> {
  await withConnection(database.url(), 'bench', (sql) =>
    sql.unsafe(`
      create table public.notes (
        id bigint primary key generated always as identity,
        user_id uuid not null default auth.uid(),
        body text not null,
        created_at timestamptz not null default now()
      );
      alter table public.notes enable row level security;
      create policy "Users keep their own notes" on public.notes to authenticated
        using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
      grant select, insert on public.notes to authenticated, service_role`))
}
