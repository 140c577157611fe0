/** What http/handlerRun.ts makes of a handler's reply, with the claim and the transaction played by the test. */
import { expect, test, vi } from 'vitest'
import { z } from 'zod'
import { sql, type SqlQuery } from '../../../supabase/functions/_shared/db/client.ts'
import { HandlerRun, type IdempotentExchange } from '../../../supabase/functions/_shared/http/handlerRun.ts'
import type { LeasedRequest } from '../../../supabase/functions/_shared/http/idempotencyOptions.ts'
import { type Reply, route } from '../../../supabase/functions/_shared/http/route.ts'
import type { LeasedClaim } from '../../../supabase/functions/_shared/resilience/idempotency.ts'

const completion = sql`select complete()`
const statement = sql`select 1`

function claimWith(completeWith: LeasedClaim['completeWith'] = vi.fn(() => completion)) {
  return { effectId: crypto.randomUUID(), resumed: false, attempt: 1, completeWith }
}

function runOf(handler: (idempotency: LeasedRequest<Record<string, unknown>>) => Reply | Promise<Reply>) {
  const declared = route({
    method: 'POST',
    path: '/',
    auth: 'none',
    summary: 'x',
    response: z.record(z.string(), z.unknown()),
    idempotency: 'leased',
    handler: (context) => handler(context.idempotency) as Reply<Record<string, unknown>>,
  })
  const exchange = { requestId: 'r1', headers: new Headers() } as IdempotentExchange
  return new HandlerRun(exchange, declared, 'a key')
}

/** A transaction that commits when told, with rows for the statement that travels with it. */
function transaction() {
  const rows = Promise.withResolvers<never[]>()
  const closing: SqlQuery[] = []
  return {
    closing,
    commit: (...given: unknown[]) => rows.resolve(given as never[]),
    fail: (error: unknown) => rows.reject(error),
    atCommit: vi.fn(() => rows.promise),
    beforeCommit: (...queries: SqlQuery[]) => void closing.push(...queries),
  }
}

test('complete() leaves the completion to the transaction, and the reply is the answer', async () => {
  const tx = transaction()
  const claim = claimWith()
  const run = runOf((idempotency) => idempotency.complete(tx, { data: { a: 1 }, status: 201 }))
  const { answer, completed } = await run.withClaim(claim)
  expect(tx.closing).toEqual([completion])
  expect(claim.completeWith).toHaveBeenCalledExactlyOnceWith(answer)
  expect(completed).toBe(true)
  expect([answer.status, JSON.parse(answer.body).data]).toEqual([201, { a: 1 }])
})

test('complete() with a statement makes the answer of what that gives at the commit', async () => {
  const tx = transaction()
  const run = runOf((idempotency) => {
    const reply = idempotency.complete(tx, { data: statement })
    tx.commit({ data: '{"a": 1}' })
    return reply
  })
  const { answer, completed } = await run.withClaim(claimWith())
  expect(answer.body).toMatch(/^\{"success":true,"data":\{"a": 1\},"meta":\{"requestId":"r1",/)
  expect([completed, tx.atCommit.mock.calls.length]).toEqual([true, 1])
})

test('complete() where the transaction runs again counts as it was called last', async () => {
  const [first, second] = [transaction(), transaction()]
  const run = runOf((idempotency) => {
    idempotency.complete(first, { data: statement })
    first.fail(new Error('serialization failure'))
    return idempotency.complete(second, { data: { a: 2 } })
  })
  const { answer, completed } = await run.withClaim(claimWith())
  expect([JSON.parse(answer.body).data, completed]).toEqual([{ a: 2 }, true])
})

test('a reply that complete() did not return is stored after the handler', async () => {
  const tx = transaction()
  const run = runOf((idempotency) => {
    idempotency.complete(tx, { data: { a: 1 } })
    return { data: { a: 2 } }
  })
  const { answer, completed } = await run.withClaim(claimWith())
  expect([JSON.parse(answer.body).data, completed]).toEqual([{ a: 2 }, undefined])
})

test('complete() where the store cannot take part leaves the answer to be stored after the handler', async () => {
  const tx = transaction()
  const run = runOf((idempotency) => idempotency.complete(tx, { data: { a: 1 } }))
  const claim = { ...claimWith(), completeWith: undefined }
  const { completed } = await run.withClaim(claim)
  expect([completed, tx.closing]).toEqual([false, []])
})

test('a statement that no transaction has run is a mistake, not an answer', async () => {
  const run = runOf(() => ({ data: statement }))
  await expect(run.withClaim(claimWith())).rejects.toThrow(/return what .*complete\(\) returned/)
})
