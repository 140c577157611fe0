/** A closed breaker around an immediate success: alone, and with what keeps a slow service from taking everything. */
import type { Bench, Measure } from '../support/suite.ts'
import { compareCalls } from '../support/calls.ts'
import { openBreakers } from './holdfast.ts'
import { cockatielSampling, cockatielWrap, lean, maxConcurrent, opossum, timeoutMs } from './peers.ts'

const work = () => Promise.resolve(1)
/** It declares the signal, and so has to be given one; it looks at it as `fetch` does first. */
const workWithSignal = (signal: AbortSignal) =>
  signal.aborted ? Promise.reject(signal.reason) : Promise.resolve(1)

export const closed: Measure = {
  name: 'closed',
  async run(bench) {
    const { breakers, tellExchanges } = await openBreakers(bench)
    const ours = breakers.get('closed')
    const sampling = cockatielSampling()
    const untimed = opossum(bench, work, { timeout: false })
    const lightest = opossum(bench, work, { ...lean, timeout: false })
    await compareCalls(bench, 'closed', {
      holdfast: () => ours.execute(work),
      cockatiel: () => sampling.execute(work),
      'opossum, no timeout': () => untimed.fire(),
      'opossum, no timeout, no percentiles': () => lightest.fire(),
      'no breaker': work,
    }, [
      { ours: 'holdfast', against: 'cockatiel', aim: '<=0.7' },
      { ours: 'holdfast', against: 'opossum, no timeout', aim: '<=0.35' },
      { ours: 'holdfast', against: 'opossum, no timeout, no percentiles', aim: '<=0.35' },
    ])
    await tellExchanges('closed', 'closed')
  },
}

export const guarded: Measure = {
  name: 'timeout and bulkhead',
  async run(bench) {
    const { breakers, tellExchanges } = await openBreakers(bench)
    await compareGuarded(bench, breakers.get('guarded', { timeoutMs, maxConcurrent }))
    await tellExchanges('timeout and bulkhead', 'guarded')
  },
}

async function compareGuarded(
  bench: Bench,
  ours: ReturnType<Awaited<ReturnType<typeof openBreakers>>['breakers']['get']>,
): Promise<void> {
  const wrapped = cockatielWrap()
  const defaults = opossum(bench, work, {})
  const lightest = opossum(bench, work, { ...lean, timeout: timeoutMs, capacity: maxConcurrent })
  await compareCalls(bench, 'timeout and bulkhead', {
    holdfast: () => ours.execute(work),
    'with a signal': () => ours.execute(workWithSignal),
    cockatiel: () => wrapped.execute(work),
    'cockatiel, signal used': () => wrapped.execute(({ signal }) => workWithSignal(signal)),
    opossum: () => defaults.fire(),
    'opossum, no percentiles': () => lightest.fire(),
    'no breaker': work,
  }, [
    { ours: 'holdfast', against: 'opossum', aim: '<=0.35' },
    { ours: 'holdfast', against: 'opossum, no percentiles', aim: '<=0.35' },
    { ours: 'holdfast', against: 'cockatiel', aim: '<=0.15' },
    { ours: 'with a signal', against: 'cockatiel, signal used', aim: '<=0.15' },
  ])
}
