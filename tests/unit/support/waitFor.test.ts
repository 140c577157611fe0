import { expect, test } from 'vitest'
import { waitFor } from '../../support/wait.ts'

test('waitFor() returns the first truthy value', async () => {
  let looks = 0
  expect(await waitFor(() => (++looks === 3 ? 'here' : undefined), { what: 'the third look' })).toBe('here')
  expect(looks).toBe(3)
})

test('waitFor() takes an error for "not yet"', async () => {
  let looks = 0
  const value = await waitFor(() => {
    if (++looks < 3) throw new Error('away')
    return looks
  }, { what: 'an answer' })
  expect(value).toBe(3)
})

test('waitFor() says what was awaited and what was seen last', async () => {
  await expect(waitFor(() => 0, { what: 'a number above 0', timeoutMs: 30 }))
    .rejects.toThrow('Waited 30 ms for a number above 0; last seen: 0')
  await expect(
    waitFor(() => Promise.reject(new Error('connection refused')), { what: 'the server', timeoutMs: 30 }),
  )
    .rejects.toThrow('Waited 30 ms for the server; last seen: connection refused')
})

test('waitFor() does not wait longer than its bound for a condition that never answers', async () => {
  const started = performance.now()
  await expect(waitFor(() => new Promise<boolean>(() => {}), { what: 'a silent peer', timeoutMs: 50 }))
    .rejects.toThrow('Waited 50 ms for a silent peer; the condition never answered')
  expect(performance.now() - started).toBeLessThan(1_000)
})
