/**
 * Money is moved through the transaction manager while connections break, clients are killed or stand still, answers
 * get lost, clocks are wrong and PostgreSQL crashes. Nothing is made, lost, done by half or done twice.
 *
 * `HOLDFAST_STORM_SEED=1 npm test -- faults/bank` repeats the choices of the storm whose report says `seed: 1`.
 */
import { join } from 'node:path'
import { beforeAll, expect, inject, test } from 'vitest'
import { openSql, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'
import { bank, openBank, reckon, type Reckoning } from './support/bank.ts'
import { brief, none } from './support/brief.ts'
import { readBankLog } from './support/bankLog.ts'
import { type BankProcess, startBankProcess } from './support/bankProcess.ts'
import { type OwnPostgres, ownPostgres } from './support/ownPostgres.ts'
import { seeded, stormSeed } from './support/random.ts'
import { Storm } from './support/storm.ts'

const stormMs = 22_000
/** Of each transaction. */
const timeoutMs = 3_000
/** Of each client, in milliseconds; each client has its own way to the server. */
const clockSkews = [60_000, -60_000, 0, 0]
const workersEach = 8
const fewestTransfers = 500

interface Client {
  proxy: WireProxy
  process: BankProcess
  /** It stands still, and goes on later. */
  still: boolean
  start(): BankProcess
}

const storm = new Storm(seeded(stormSeed()))
const { random } = storm
const report = () => JSON.stringify({ seed: random.seed, ...storm.counts, ...reckoning?.counts })

let postgres: OwnPostgres
let admin: Sql
let reckoning: Reckoning | undefined
let sums: Set<string>
let stillOpen: unknown[]

beforeAll(async () => {
  postgres = await ownPostgres('bank')
  admin = openSql(postgres.adminUrl)
  await openBank(admin)
  const logs: string[] = []
  const clients = clockSkews.map((clockSkewMs) => openClient(clockSkewMs, logs))
  sums = new Set()

  storm.every('samples', [80, 120], sample)
  // Whoever stands still keeps its connections: its transactions are to end by their time alone.
  const anyone = () => random.pick(clients.filter((client) => !client.still))
  storm.every('cuts', [250, 750], () => anyone().proxy.cut())
  storm.every('', [500, 1_000], () => loseAnswer(anyone().proxy))
  storm.every('silences', [2_000, 4_000], () => beSilent(anyone().proxy))
  storm.every('kills', [2_000, 3_000], () => replace(anyone()))
  storm.at('hangs', 9_000, () => standStill(anyone()))
  storm.at('crashes', 6_000, () => postgres.crash())
  storm.at('crashes', 14_000, () => postgres.crash())
  try {
    await storm.blow(stormMs, () => (storm.counts.transfers ?? 0) >= fewestTransfers)
    stillOpen = await endOf(clients)
  } finally {
    await Promise.all(clients.map(({ process }) => process.kill().catch(() => {})))
    await Promise.all(clients.map(({ proxy }) => proxy.close()))
  }
  await admin`select holdfast.sweep_transactions()`
  reckoning = await reckon(admin, await Promise.all(logs.map(readBankLog)))
}, 150_000)

test('the storm was one', () => {
  const { crashes, hangs, kills = 0, cuts = 0, samples = 0, silences = 0, ...others } = storm.counts
  expect({ crashes, hangs }, report()).toEqual({ crashes: 2, hangs: 1 })
  expect(kills, report()).toBeGreaterThanOrEqual(5)
  expect(cuts, report()).toBeGreaterThanOrEqual(20)
  expect(silences, report()).toBeGreaterThanOrEqual(2)
  expect(samples, report()).toBeGreaterThanOrEqual(40)
  expect(others.lostAnswers ?? 0, report()).toBeGreaterThanOrEqual(5)
  const { committed = 0, unfinished = 0, refused = 0 } = reckoning?.counts ?? {}
  expect(committed, report()).toBeGreaterThanOrEqual(fewestTransfers / 2)
  expect(refused, report()).toBeGreaterThanOrEqual(50)
  // Transfers that a killed process has begun and never ended: it was killed in the middle of them.
  expect(unfinished, report()).toBeGreaterThanOrEqual(kills)
})

test('the sum of all balances is the same at every moment', () => {
  expect([...sums], report()).toEqual([String(bank.accounts * bank.openingBalance)])
})

test.each(
  [
    ['every acknowledged transfer is there', 'lost'],
    ['no transfer that was reported as rolled back is there', 'ghosts'],
    ['every transfer there is as it was begun, and in the name of its own user', 'strangers'],
    ['no transfer is there twice', 'twice'],
    ['each balance is what the transfers make it', 'balances'],
    ['what runs after a commit runs once, and for nothing else', 'afterwards'],
  ] as const,
)('%s', (_, list) => {
  expect(brief(reckoning?.findings[list]), report()).toEqual(none)
})

test('no transaction and no lock outlasts its time, though clients were killed and one stands still', () => {
  expect(stillOpen, report()).toEqual([])
  // Before PostgreSQL 17 a statement and the rest after it may each take that long where the client stands still.
  expect(storm.counts.longestTransactionMs, report()).toBeLessThan(2 * timeoutMs + 1_000)
})

test('the books say committed of exactly the transactions that did', () => {
  expect(brief(reckoning?.findings.books), report()).toEqual(none)
})

test('no transaction is open in the books after the sweep', async () => {
  const open = await admin`select id, status from holdfast.transactions where status = 'open'`
  expect(open, report()).toHaveLength(0)
})

function openClient(clockSkewMs: number, logs: string[]): Client {
  const proxy = startWireProxy({ target: postgres.url, delayMs: { up: 2, down: 2 } })
  const start = () => {
    const logFile = join(inject('runDir'), `bank-${Deno.pid}-${logs.length}.log`)
    Deno.writeTextFileSync(logFile, '')
    logs.push(logFile)
    return startBankProcess({
      url: proxy.url,
      logFile,
      seed: random.between(0, 2 ** 31),
      workers: workersEach,
      accounts: bank.accounts,
      timeoutMs,
      clockSkewMs,
    })
  }
  return { proxy, process: start(), still: false, start }
}

/** Kills a client between two instructions and starts another in its place. */
async function replace(client: Client): Promise<void> {
  const { process } = client
  client.process = client.start()
  await process.kill()
}

/** Long enough for its transactions to run out of time; then it goes on and has to notice. */
async function standStill(client: Client): Promise<void> {
  client.still = true
  client.process.freeze()
  await storm.pause(timeoutMs + 1_000)
  client.process.thaw()
  client.still = false
}

/** The server does the work and commits, the client never hears of it. */
function loseAnswer(proxy: WireProxy): void {
  void proxy.loseAnswer('commit').then(() => storm.count('lostAnswers'))
}

async function beSilent(proxy: WireProxy): Promise<void> {
  proxy.freeze()
  await storm.pause(400)
  proxy.thaw()
}

async function sample(): Promise<boolean> {
  try {
    const [row] = await admin`
      select (select sum(balance) from public.accounts) as sum,
        (select count(*)::int from public.transfers) as transfers,
        (select coalesce(max(extract(epoch from clock_timestamp() - xact_start)) * 1000, 0)::int
          from pg_stat_activity where application_name like 'bank%') as longest`
    sums.add(row?.sum)
    storm.counts.transfers = row?.transfers
    storm.counts.longestTransactionMs = Math.max(storm.counts.longestTransactionMs ?? 0, row?.longest)
    return true
  } catch (error) {
    if (postgres.up && !isConnectionLoss(error)) throw error
    return false
  }
}

function isConnectionLoss(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^(CONN|ECONN|57P0)/.test(String(error.code))
}

/** One is killed, one stands still and stays so, the others finish. Returns what is open when its time is over. */
async function endOf([killed, frozen, ...others]: Client[]): Promise<unknown[]> {
  frozen!.process.freeze()
  await Promise.all([killed!.process.kill(), ...others.map(({ process }) => process.stop())])
  let open: unknown[] = []
  await waitFor(async () => {
    open = [
      ...await admin`
      select a.state, a.query, l.locktype, clock_timestamp() - a.xact_start as age
      from pg_stat_activity a
      left join pg_locks l on l.pid = a.pid and l.locktype = 'advisory'
      where a.datname = current_database() and a.pid <> pg_backend_pid()
        and a.application_name like 'bank%' and (a.xact_start is not null or l.pid is not null)`,
    ]
    return open.length === 0
  }, { what: 'every transaction to end', timeoutMs: 2 * timeoutMs }).catch(() => {})
  return open
}
