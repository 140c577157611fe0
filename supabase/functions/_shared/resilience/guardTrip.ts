/**
 * What stands in front of a request's work, in one round trip: its limit, the claim of its idempotency key, and what the
 * breakers of this isolate have to tell and to hear. Requests that arrive together travel together.
 */
import { type Db, sql } from '../db/client.ts'
import { type CircuitBreakers, circuitBreakers } from './circuitBreaker.ts'
import { batched } from './stores/batch.ts'
import type { BreakerStatus } from './stores/breakerStore.ts'
import { claimOf, type LeaseRow } from './stores/postgres.ts'
import { rateLimitSql } from './stores/postgresRateLimits.ts'
import type { RateLimitAnswer, RateLimitQuestion } from './stores/rateLimitStore.ts'
import { requireQuestion } from './stores/rateLimitWire.ts'
import { type Claim, type ClaimOptions, dayMs, type IdempotencyRequest } from './stores/store.ts'

export interface GuardQuestion {
  /** For one call. */
  limit?: RateLimitQuestion
  /** Made only if the limit admits the call. */
  claim?: ClaimOptions & { request: IdempotencyRequest }
}

export interface GuardAnswer {
  limit: RateLimitAnswer | undefined
  /** Undefined where none was asked for, or the limit refused. */
  claim: Claim | undefined
}

/**
 * Decides as `PostgresRateLimitStore.decide` and `PostgresIdempotencyStore.claim` do. Rejects with `SERVICE_UNAVAILABLE`
 * when PostgreSQL cannot be reached: whether anything was taken or claimed is then unknown.
 */
export type EnterGuards = (question: GuardQuestion) => Promise<GuardAnswer>

export interface GuardTripOptions {
  /** The database in which limits, keys and breakers are. */
  db: Db | (() => Db)
  /** Whose reports travel along when they are due. @default this isolate's */
  breakers?: Pick<CircuitBreakers, 'outgoing'>
}

/** Claims that one statement makes at most; each may wait for a row that another isolate has just claimed. */
const maxItems = 50

/** Two trips at once: a commit that waits for the disk does not hold up those who came after. */
const maxRunning = 2

/** Opens nothing. A question that makes no sense is rejected with `TypeError` or `RangeError`, and asked of nobody. */
export function createGuardTrip({ db, breakers = circuitBreakers }: GuardTripOptions): EnterGuards {
  const database = typeof db === 'function' ? db : () => db
  const enter = batched((questions: GuardQuestion[]) => enterAll(database(), breakers, questions), {
    maxItems,
    maxRunning,
  })
  return async (question) => {
    // What makes no sense would fail whoever travels along.
    if (question.limit !== undefined) requireQuestion(question.limit)
    if (question.claim !== undefined) requireClaim(question.claim)
    return await enter(question)
  }
}

interface GuardRow extends Record<string, unknown> {
  limits: string | null
  claims: Record<string, LeaseRow>
  statuses: BreakerStatus[] | null
}

async function enterAll(
  db: Db,
  breakers: Pick<CircuitBreakers, 'outgoing'>,
  questions: GuardQuestion[],
): Promise<GuardAnswer[]> {
  const asked = questions.flatMap(({ limit }, nth) => limit === undefined ? [] : [{ limit, nth }])
  const limits = asked.length === 0 ? undefined : rateLimitSql(asked.map(({ limit }) => limit))
  const places = new Map(asked.map(({ nth }, index) => [nth, limits!.places[index]!]))
  const claims = questions.flatMap(({ claim }, nth) =>
    claim === undefined ? [] : [claimRow(claim, nth, places.get(nth))]
  )
  const trip = breakers.outgoing()
  try {
    const [row] = await db.owner.query<GuardRow>(sql`
      select limits::text, claims, statuses
      from holdfast.enter_guards(${limits?.expression ?? null}, ${claims}::jsonb, ${
      trip?.reports ?? []
    }::jsonb)`)
    if (row!.statuses === null) trip?.end()
    else trip?.arrived(row!.statuses)
    const answers = limits?.answers(row!.limits!) ?? []
    const answered = new Map(asked.map(({ nth }, index) => [nth, answers[index]]))
    return questions.map((_question, nth) => {
      const claim = row!.claims[nth]
      return { limit: answered.get(nth), claim: claim && claimOf(claim) }
    })
  } catch (error) {
    trip?.failed(error)
    throw error
  }
}

function claimRow(
  { request, leaseMs, ttlMs = dayMs }: NonNullable<GuardQuestion['claim']>,
  nth: number,
  place: number | undefined,
) {
  const { id, fingerprint, route, callerId, requestId } = request
  return {
    nth,
    place,
    id,
    fingerprint,
    route,
    caller_id: callerId,
    request_id: requestId,
    lease_ms: leaseMs,
    ttl_ms: ttlMs,
  }
}

const longestMs = 100 * 366 * dayMs

function requireClaim({ request, leaseMs, ttlMs = dayMs }: NonNullable<GuardQuestion['claim']>): void {
  const { id, fingerprint, route, callerId, requestId } = request
  for (const [name, digest] of Object.entries({ id, fingerprint })) {
    if (!/^[\da-f]{64}$/.test(digest)) throw refused(`${name} must be 64 hex digits`, digest)
  }
  for (const [name, text] of Object.entries({ route, callerId, requestId })) {
    if (text?.includes('\0') || text?.isWellFormed() === false) {
      throw refused(`${name} must be a well-formed text without NUL`, text)
    }
  }
  for (const [name, ms] of Object.entries({ leaseMs, ttlMs })) {
    if (!Number.isSafeInteger(ms) || ms < 0 || ms > longestMs) {
      throw new RangeError(
        `Cannot claim an idempotency key: ${name} must be a whole number from 0 to ${longestMs}, received ${ms}`,
      )
    }
  }
}

function refused(rule: string, received: string): TypeError {
  return new TypeError(`Cannot claim an idempotency key: ${rule}, received ${JSON.stringify(received)}`)
}
