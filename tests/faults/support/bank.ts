/** The bank's tables, and what they must agree with after a storm: themselves, the clients' logs, Holdfast's books. */
import type { Sql } from '../../support/sql.ts'
import type { BankEvent, Started } from './bankLog.ts'

export const bank = { accounts: 40, openingBalance: 1_000 }

/**
 * A transfer's id is not unique on purpose: what runs twice shall be seen twice, and not be hidden by an error. Row
 * level security decides who made a transfer, so a role or claims that stayed on a connection would be seen as well.
 */
export async function openBank(admin: Sql): Promise<void> {
  await admin.unsafe(`
    create table public.accounts (
      id int primary key,
      balance bigint not null,
      constraint balance_is_not_negative check (balance >= 0)
    );
    create table public.transfers (
      id uuid not null,
      source int not null references public.accounts (id),
      target int not null references public.accounts (id),
      amount bigint not null,
      made_by uuid not null default auth.uid(),
      transaction_id uuid,
      constraint amount_is_positive check (amount > 0)
    );
    create index transfers_by_id on public.transfers (id);

    alter table public.accounts enable row level security;
    alter table public.transfers enable row level security;
    create policy "Users move money" on public.accounts to authenticated using (auth.uid() is not null);
    create policy "Users make transfers" on public.transfers to authenticated using (made_by = auth.uid());
    grant select, update on public.accounts to authenticated;
    grant select, insert, update on public.transfers to authenticated;

    insert into public.accounts (id, balance)
    select id, ${bank.openingBalance} from generate_series(1, ${bank.accounts}) as id;
  `)
}

interface Stored {
  id: string
  source: number
  target: number
  amount: number
  by: string
  transactionId: string | null
}

/** Every list names what is wrong; all are empty where nothing is. */
export interface Findings {
  /** Acknowledged, and not there. */
  lost: string[]
  /** Reported as rolled back, and there. */
  ghosts: string[]
  /** There, and nobody has ever begun them; or other than they were begun. */
  strangers: string[]
  twice: string[]
  /** Accounts whose balance is not what the transfers make it. */
  balances: string[]
  /** Transfers whose transaction is not `committed` in the books, and committed ones without a transfer. */
  books: string[]
  /** afterCommit ran for what is not there, or twice, or not at all before the acknowledgement. */
  afterwards: string[]
}

export interface Reckoning {
  findings: Findings
  counts: Record<string, number>
}

export async function reckon(admin: Sql, logs: readonly BankEvent[][]): Promise<Reckoning> {
  const events = logs.flat()
  const started = new Map<string, Started>()
  for (const event of events) if (event.event === 'started') started.set(event.id, event)
  const ids = (kind: BankEvent['event']) =>
    events.filter(({ event }) => event === kind).map((event) => event.id)
  const stored = [
    ...await admin<Stored[]>`
    select id, source, target, amount::int as amount, made_by as by, transaction_id as "transactionId"
    from public.transfers`,
  ]
  const there = new Set(stored.map(({ id }) => id))
  const ended = new Set([...ids('committed'), ...ids('refused'), ...ids('unknown')])
  return {
    findings: {
      lost: ids('committed').filter((id) => !there.has(id)),
      ghosts: events.flatMap((event) =>
        event.event === 'refused' && there.has(event.id)
          ? [`${event.id} ${started.get(event.id)?.way}: ${event.code} ${event.text}`]
          : []
      ),
      strangers: stored.filter((row) => !isAsStarted(row, started.get(row.id))).map(({ id }) => id),
      twice: repeated(stored.map(({ id }) => id)),
      balances: await wrongBalances(admin),
      books: await wrongBooks(admin, events),
      afterwards: wrongAfterwards(ids('after')),
    },
    counts: {
      ...countBy(events.map(({ event }) => event)),
      ...countBy(events.flatMap((event) => event.event === 'refused' ? [event.code] : [])),
      unfinished: [...started.keys()].filter((id) => !ended.has(id)).length,
      'unknown and there': ids('unknown').filter((id) => there.has(id)).length,
      stored: stored.length,
    },
  }

  function wrongAfterwards(ran: string[]): string[] {
    const has = new Set(ran)
    const missed = ids('committed').filter((id) => !has.has(id) && started.get(id)?.way !== 'stepwise')
    return [...ran.filter((id) => !there.has(id)), ...repeated(ran), ...missed]
  }
}

function isAsStarted(row: Stored, begun: Started | undefined): boolean {
  return begun !== undefined && row.source === begun.source && row.target === begun.target &&
    row.amount === begun.amount && row.by === begun.by
}

async function wrongBalances(admin: Sql): Promise<string[]> {
  const rows = await admin<{ id: number; balance: string; expected: string }[]>`
    select a.id, a.balance, e.expected
    from public.accounts a
    cross join lateral (
      select ${bank.openingBalance}
        + coalesce(sum(t.amount) filter (where t.target = a.id), 0)
        - coalesce(sum(t.amount) filter (where t.source = a.id), 0) as expected
      from public.transfers t
    ) e
    where a.balance <> e.expected`
  return rows.map(({ id, balance, expected }) => `account ${id} holds ${balance}, transfers say ${expected}`)
}

async function wrongBooks(admin: Sql, events: readonly BankEvent[]): Promise<string[]> {
  const known = events.filter((event) => event.event === 'committed')
  if (known.length === 0) return []
  const rows = await admin<{ id: string; status: string; transfers: number }[]>`
    select b.id, b.status, count(t.id)::int as transfers
    from holdfast.transactions b
    full join public.transfers t on t.transaction_id = b.id
    group by b.id, b.status
    having count(t.id) <> case b.status when 'committed' then 1 else 0 end`
  return rows.map(({ id, status, transfers }) => `transaction ${id} is ${status} with ${transfers} transfers`)
}

function repeated(list: readonly string[]): string[] {
  return Object.entries(countBy(list)).filter(([, times]) => times > 1).map(([name]) => name)
}

function countBy(list: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const name of list) counts[name] = (counts[name] ?? 0) + 1
  return counts
}
