/**
 * Customers place orders with idempotency keys, again and again until they have an answer, while connections break,
 * isolates are killed, leases run out under those who hold them, the payment provider fails, is slow or never answers,
 * and PostgreSQL crashes. Each key leads to one order, one payment and one change of stock, or to none of them.
 *
 * `HOLDFAST_STORM_SEED=1 npm test -- faults/orders` repeats the choices of the storm whose report says `seed: 1`.
 */
import { join } from 'node:path'
import { beforeAll, expect, inject, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { openProject } from '../../local/project.ts'
import { type Stack, startStack } from '../../local/stack.ts'
import { newUser, type SignedIn } from '../support/client.ts'
import { closeAfterFile } from '../support/leftovers.ts'
import { provider, shopState } from '../support/shop.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'
import { startWireProxy } from '../support/wireProxy.ts'
import { brief, none } from './support/brief.ts'
import { type Answer, ask, newWish, type Wish } from './support/customers.ts'
import { ownPostgres } from './support/ownPostgres.ts'
import { seeded, stormSeed } from './support/random.ts'
import { auditShop, type ShopFindings } from './support/shopBooks.ts'
import { Storm } from './support/storm.ts'

const stormMs = 20_000
const customers = 16
const fewestOrders = 80

const storm = new Storm(seeded(stormSeed()))
const { random } = storm
const report = () => JSON.stringify({ seed: random.seed, ...storm.counts })

let stack: Stack
let admin: Sql
let payments: ReturnType<typeof provider>
let findings: ShopFindings
const wishes: Wish[] = []

beforeAll(async () => {
  const postgres = await ownPostgres('orders')
  const proxy = startWireProxy({ target: postgres.url, delayMs: { up: 1, down: 1 } })
  closeAfterFile({ name: 'the way to PostgreSQL', close: () => proxy.close() })
  stack = await startStack({
    project: openProject({ localDir: join(inject('runDir'), `stack-${Deno.pid}`) }),
    port: 0,
    paymentsPort: 0,
    databaseUrl: proxy.url,
    adminUrl: postgres.adminUrl,
    isolates: 3,
  })
  closeAfterFile({ name: 'the stack in the storm', close: () => stack.close() })
  admin = openSql(postgres.adminUrl)
  payments = provider(stack)
  // Each with a limit of their own.
  const people = await Promise.all(Array.from({ length: customers }, () => newUser(stack)))
  await admin`update public.products set stock = 100000 where stock = 1000`
  const { stock } = await shopState(admin)

  for (let each = 0; each < customers; each++) {
    storm.at('customers', 0, () => shop(people[each]!))
  }
  storm.every('cuts', [400, 1_200], () => proxy.cut())
  storm.every('', [600, 1_400], () => {
    void proxy.loseAnswer('commit').then(() => storm.count('lostAnswers'))
  })
  storm.every('kills', [2_000, 3_000], killOne)
  storm.every('moods', [300, 900], changeMood)
  storm.every('hurries', [1_000, 2_000], () => whileUp(hurryTime))
  storm.at('crashes', 6_000, () => postgres.crash())
  storm.at('crashes', 13_000, () => postgres.crash())
  await storm.blow(stormMs, () => ordered() >= fewestOrders)

  await payments.behave({ mode: 'ok' })
  await waitFor(() => stack.host.isolates().every(({ inFlight }) => inFlight === 0), {
    what: 'the last requests of the storm to end',
    timeoutMs: 40_000,
  })
  await heal(people[0]!)
  await endLeases()
  // Most find their charge and go on from there; what is left behind after that is undone.
  await eachOf(wishes, async (wish) => void await ask(stack.functionsUrl, wish))
  await undoAll()
  await eachOf(wishes, getAnswer)
  await undoAll()
  // Once more each, to compare the answers.
  await eachOf(wishes, getAnswer)
  const audit = await auditShop(admin, stack.paymentsUrl, wishes, stock)
  findings = audit.findings
  Object.assign(storm.counts, audit.counts)

  async function whileUp(work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work()
      return true
    } catch (error) {
      if (postgres.up && !(error instanceof Error && 'code' in error)) throw error
      return false
    }
  }
}, 240_000)

test('the storm was one', () => {
  const { crashes, kills = 0, cuts = 0, lostAnswers = 0, moods = 0, ...others } = storm.counts
  expect(crashes, report()).toBe(2)
  expect(kills, report()).toBeGreaterThanOrEqual(4)
  expect(cuts, report()).toBeGreaterThanOrEqual(10)
  expect(lostAnswers, report()).toBeGreaterThanOrEqual(3)
  expect(moods, report()).toBeGreaterThanOrEqual(15)
  expect(others.ordered ?? 0, report()).toBeGreaterThanOrEqual(fewestOrders / 2)
  // Keys that one attempt took over from another, and charges that were given back.
  expect(others.resumed ?? 0, report()).toBeGreaterThanOrEqual(5)
  expect(others.refunded ?? 0, report()).toBeGreaterThanOrEqual(1)
})

test('no refund is given up', () => {
  expect(storm.counts.discarded, report()).toBe(0)
})

test('no fault shows as an error of the function itself', () => {
  expect(Object.keys(storm.counts).filter((name) => /INTERNAL_ERROR|TRANSACTION_CLOSED/.test(name)), report())
    .toEqual([])
})

test.each(
  [
    ['every key has a definite answer in the end', 'unanswered'],
    ['all answers of a key are the same, byte for byte', 'differing'],
    ['each key with 201 has one order, with its items and one payment', 'orders'],
    ['there is no other order', 'strangers'],
    ["by the provider's own ledger each order is paid once, and every other charge is refunded", 'charges'],
    ['the stock is what was not sold', 'stock'],
  ] as const,
)('%s', (_, list) => {
  expect(brief(findings[list]), report()).toEqual(none)
})

const ordered = () => wishes.filter(({ answers }) => answers[0]?.status === 201).length

/** One customer through the storm. */
async function shop(who: SignedIn): Promise<void> {
  while (await storm.pause(random.between(50, 250))) {
    const wish = newWish(who, random)
    wishes.push(wish)
    const devices = random.chance(0.3) ? 2 : 1
    await Promise.all(Array.from({ length: devices }, () => insist(wish)))
  }
}

async function insist(wish: Wish): Promise<void> {
  do {
    // Some lose their patience early and ask again, while their first request still runs.
    const answer = await ask(stack.functionsUrl, wish, random.chance(0.1) ? 300 : undefined)
    storm.count(nameOf(answer))
    if (answer?.definite && !random.chance(0.2)) return
  } while (await storm.pause(random.between(50, 300)))
}

function nameOf(answer: Answer | undefined): string {
  if (answer === undefined) return 'noAnswer'
  return [answer.status, answer.code, answer.replayed && 'replayed'].filter(Boolean).join(' ')
}

async function killOne(): Promise<boolean> {
  const isolates = stack.host.isolates().filter((isolate) => isolate.inFlight > 0)
  if (isolates.length === 0) return false
  Deno.kill(random.pick(isolates).pid, 'SIGKILL')
  return await Promise.resolve(true)
}

async function changeMood(): Promise<void> {
  await payments.behave(random.pick([
    { mode: 'ok' },
    { mode: 'ok' },
    { mode: 'fail', status: random.pick([500, 503, 429]), next: random.between(1, 4) },
    { mode: 'slow', delayMs: random.between(200, 1_500), next: random.between(1, 4) },
    { mode: 'hang', next: random.between(1, 2) },
  ]))
}

/**
 * Leases end, also those whose holder lives, what may have to be undone is due, also what may yet commit, and a provider
 * that is being left alone may be probed.
 */
async function hurryTime(): Promise<void> {
  await endLeases()
  await admin`update holdfast.compensations set due_at = clock_timestamp() where ended_at is null`
  await admin`update holdfast.circuit_breakers set retry_at = clock_timestamp() where state = 'open'`
  await undoDue()
}

async function endLeases(): Promise<void> {
  await admin`update holdfast.idempotency_keys set leased_until = clock_timestamp() where status is null`
}

/** After the storm: somebody orders until the provider's breaker is closed. */
async function heal(who: SignedIn): Promise<void> {
  await waitFor(async () => {
    await admin`update holdfast.circuit_breakers set retry_at = clock_timestamp() where state = 'open'`
    const wish = newWish(who, random)
    wishes.push(wish)
    await ask(stack.functionsUrl, wish)
    const [row] =
      await admin`select count(*)::int as sick from holdfast.circuit_breakers where state <> 'closed'`
    return row!.sick === 0
  }, { what: 'the breaker to close', timeoutMs: 20_000, everyMs: 200 })
}

/** What the sweep does each minute. */
async function undoDue(): Promise<void> {
  const response = await fetch(`${stack.functionsUrl}/orders/compensations`, {
    method: 'POST',
    headers: { apikey: localKeys.secret },
  })
  await response.body?.cancel()
}

/** After the storm: two minutes pass at a time until nothing is left to be undone. */
async function undoAll(): Promise<void> {
  await waitFor(async () => {
    const { count } = await admin`
      update holdfast.compensations
      set due_at = clock_timestamp(), recorded_at = recorded_at - interval '2 minutes'
      where ended_at is null`
    if (count > 0) await undoDue()
    return count === 0
  }, { what: 'every compensation to be done', timeoutMs: 20_000, everyMs: 100 })
}

/** After the storm: as a customer who does not give up. */
async function getAnswer(wish: Wish): Promise<void> {
  const had = wish.answers.length
  await waitFor(async () => {
    await ask(stack.functionsUrl, wish)
    return wish.answers.length > had
  }, { what: `an answer to ${wish.key}`, timeoutMs: 10_000, everyMs: 200 }).catch(() => {})
}

/** So many at a time as there are customers. */
async function eachOf<T>(list: readonly T[], work: (one: T) => Promise<void>): Promise<void> {
  const rest = [...list]
  await Promise.all(Array.from({ length: customers }, async () => {
    for (let one = rest.shift(); one !== undefined; one = rest.shift()) await work(one)
  }))
}
