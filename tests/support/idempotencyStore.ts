/** What every store of idempotency keys must do: the shared suite, and requests to claim. */
import { describe, expect, test } from 'vitest'
import type {
  Claim,
  IdempotencyRequest,
  IdempotencyStore,
  StoredAnswer,
} from '../../supabase/functions/_shared/resilience/idempotency.ts'

/** A store, and its time: leases and answers end when a test says so. */
export interface StoreUnderTest {
  store: IdempotencyStore
  /** A second isolate's view of the same keys; absent where there is none. */
  other?: IdempotencyStore
  endLease(request: IdempotencyRequest): Promise<void>
  /** The key's time to live is over, whether it was answered or not. */
  expire(request: IdempotencyRequest): Promise<void>
  /** Milliseconds until it is over. */
  timeToLive(request: IdempotencyRequest): Promise<number>
}

/** Another key at every call. */
export function newRequest(given: Partial<IdempotencyRequest> = {}): IdempotencyRequest {
  return { id: digest(), fingerprint: digest(), route: 'POST /things', callerId: null, ...given }
}

export const answer: StoredAnswer = {
  status: 201,
  headers: [['set-cookie', 'a=1'], ['set-cookie', 'b=2; Path=/'], ['content-type', 'application/json']],
  body: '{"snow":"☃ \u{1D11E}", "spaces" : [1,  2]}\n',
}

export function claimed(claim: Claim): Extract<Claim, { outcome: 'claimed' }> {
  expect(claim.outcome).toBe('claimed')
  return claim as Extract<Claim, { outcome: 'claimed' }>
}

/** `open` is called for each test; what it opens is its caller's to close. */
export function describeStore(open: () => StoreUnderTest | Promise<StoreUnderTest>): void {
  const lease = { leaseMs: 60_000 }
  const day = 86_400_000

  describe('claim()', () => {
    test('gives a new key with an effect of its own', async () => {
      const { store } = await open()
      const first = claimed(await store.claim(newRequest(), lease))
      const second = claimed(await store.claim(newRequest(), lease))
      expect(first).toEqual({
        outcome: 'claimed',
        effectId: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-4/),
        token: expect.any(Number),
        attempt: 1,
        resumed: false,
      })
      expect(second.effectId).not.toBe(first.effectId)
    })

    test('is in_progress for the same request, in every isolate, and says when the lease ends', async () => {
      const { store, other = store } = await open()
      const request = newRequest()
      await store.claim(request, lease)
      for (const each of [store, other]) {
        const claim = await each.claim(request, lease)
        expect(claim).toEqual({ outcome: 'in_progress', retryAfterMs: expect.any(Number) })
        const { retryAfterMs } = claim as { retryAfterMs: number }
        expect(retryAfterMs).toBeGreaterThan(50_000)
        expect(retryAfterMs).toBeLessThanOrEqual(60_000)
      }
    })

    test('is a mismatch for another fingerprint: while it runs, given up, and when it is finished (IK3)', async () => {
      const { store, endLease } = await open()
      const request = newRequest()
      const another = newRequest({ id: request.id })
      const { token } = claimed(await store.claim(request, lease))
      expect(await store.claim(another, lease)).toEqual({ outcome: 'mismatch' })
      await endLease(request)
      expect(await store.claim(another, lease)).toEqual({ outcome: 'mismatch' })
      expect(await store.complete(request, token, answer, day)).toBe(true)
      expect(await store.claim(another, lease)).toEqual({ outcome: 'mismatch' })
    })

    test('of a hundred at the same time gives one to run', async () => {
      const { store, other = store } = await open()
      const request = newRequest()
      const claims = await Promise.all(
        Array.from({ length: 100 }, (_, i) => (i % 2 ? store : other).claim(request, lease)),
      )
      const outcomes = claims.map(({ outcome }) => outcome).sort()
      expect(outcomes).toEqual(['claimed', ...Array(99).fill('in_progress')])
    })

    test('resumes one whose lease ended: same effect, greater token, next attempt (IK8)', async () => {
      const { store, endLease } = await open()
      const request = newRequest()
      const first = claimed(await store.claim(request, lease))
      await endLease(request)
      const second = claimed(await store.claim(request, lease))
      expect(second).toMatchObject({ effectId: first.effectId, attempt: 2, resumed: true })
      expect(second.token).toBeGreaterThan(first.token)
      expect((await store.claim(request, lease)).outcome).toBe('in_progress')
    })

    test('takes an expired key as a new request with a new effect, finished or not (IK6)', async () => {
      const { store, expire } = await open()
      for (const finished of [true, false]) {
        const request = newRequest()
        const first = claimed(await store.claim(request, lease))
        if (finished) await store.complete(request, first.token, answer, day)
        await expire(request)
        const another = newRequest({ id: request.id })
        const second = claimed(await store.claim(another, lease))
        expect(second).toMatchObject({ attempt: 1, resumed: false })
        expect(second.effectId).not.toBe(first.effectId)
        expect(second.token).toBeGreaterThan(first.token)
        expect(await store.complete(request, first.token, answer, day)).toBe(false)
      }
    })

    test('remembers an unfinished key for its time to live behind the lease', async () => {
      const { store, timeToLive } = await open()
      const request = newRequest()
      await store.claim(request, { leaseMs: 60_000, ttlMs: 100_000 })
      const leftMs = await timeToLive(request)
      expect(leftMs).toBeGreaterThan(150_000)
      expect(leftMs).toBeLessThanOrEqual(160_000)
    })
  })

  describe('complete()', () => {
    test('stores the answer, which is replayed byte for byte, repeated headers included (IK5)', async () => {
      const { store, other = store, timeToLive } = await open()
      const request = newRequest()
      const { token } = claimed(await store.claim(request, lease))
      expect(await store.complete(request, token, answer, day)).toBe(true)
      expect(await other.claim(request, lease)).toEqual({ outcome: 'replay', answer })
      const leftMs = await timeToLive(request)
      expect(leftMs).toBeGreaterThan(day - 10_000)
      expect(leftMs).toBeLessThanOrEqual(day)
    })

    test('stores an empty body and no headers', async () => {
      const { store } = await open()
      const request = newRequest()
      const { token } = claimed(await store.claim(request, lease))
      const empty: StoredAnswer = { status: 204, headers: [], body: '' }
      await store.complete(request, token, empty, day)
      expect(await store.claim(request, lease)).toEqual({ outcome: 'replay', answer: empty })
    })

    test('is refused to a holder whose lease was taken over, and changes nothing', async () => {
      const { store, endLease } = await open()
      const request = newRequest()
      const slow = claimed(await store.claim(request, lease))
      await endLease(request)
      const next = claimed(await store.claim(request, lease))
      expect(await store.complete(request, slow.token, { ...answer, body: 'slow' }, day)).toBe(false)
      expect((await store.claim(request, lease)).outcome).toBe('in_progress')
      expect(await store.complete(request, next.token, answer, day)).toBe(true)
      expect(await store.claim(request, lease)).toEqual({ outcome: 'replay', answer })
    })

    test('is taken from a holder whose lease ended and that nobody took over', async () => {
      const { store, endLease } = await open()
      const request = newRequest()
      const { token } = claimed(await store.claim(request, lease))
      await endLease(request)
      expect(await store.complete(request, token, answer, day)).toBe(true)
      expect(await store.claim(request, lease)).toEqual({ outcome: 'replay', answer })
    })

    test('is refused for a key that has its answer, that nobody claimed, or with a token of somebody else', async () => {
      const { store } = await open()
      const request = newRequest()
      expect(await store.complete(request, 1, answer, day)).toBe(false)
      const { token } = claimed(await store.claim(request, lease))
      expect(await store.complete(request, token + 1, answer, day)).toBe(false)
      expect(await store.complete(request, token, answer, day)).toBe(true)
      expect(await store.complete(request, token, { ...answer, body: 'again' }, day)).toBe(false)
      expect(await store.claim(request, lease)).toEqual({ outcome: 'replay', answer })
    })
  })

  describe('release()', () => {
    test('lets the next attempt in at once, which is told that the outcome is unknown', async () => {
      const { store } = await open()
      const request = newRequest()
      const first = claimed(await store.claim(request, lease))
      expect(await store.release(request, first.token)).toBe(true)
      const second = claimed(await store.claim(request, lease))
      expect(second).toMatchObject({ effectId: first.effectId, attempt: 2, resumed: true })
    })

    test('is refused to whoever does not hold the claim', async () => {
      const { store, endLease } = await open()
      const request = newRequest()
      expect(await store.release(request, 1)).toBe(false)
      const slow = claimed(await store.claim(request, lease))
      await endLease(request)
      const next = claimed(await store.claim(request, lease))
      expect(await store.release(request, slow.token)).toBe(false)
      expect((await store.claim(request, lease)).outcome).toBe('in_progress')
      await store.complete(request, next.token, answer, day)
      expect(await store.release(request, next.token)).toBe(false)
      expect(await store.claim(request, lease)).toEqual({ outcome: 'replay', answer })
    })
  })
}

function digest(): string {
  return crypto.getRandomValues(new Uint8Array(32)).toHex()
}
