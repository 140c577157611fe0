/** A call that an open breaker refuses, as its caller sees it: awaited and caught. */
import type { Measure } from '../support/suite.ts'
import { compareCalls } from '../support/calls.ts'
import { openBreakers } from './holdfast.ts'
import { cockatielSampling, cooldownMs, lean, opossum } from './peers.ts'

const name = 'refused'
const failing = () => Promise.reject(new Error('The service is away'))
const never = () => Promise.resolve(1)

export const refused: Measure = {
  name,
  async run(bench) {
    const { breakers, tellExchanges } = await openBreakers(bench)
    const ours = breakers.get('refused', { failureThreshold: 5, cooldownMs })
    const forced = breakers.get('forced')
    const open = cockatielSampling()
    const isolated = cockatielSampling()
    const opened = opossum(bench, never, { ...lean, resetTimeout: cooldownMs })
    for (let failures = 0; failures < 5; failures++) await caught(() => ours.execute(failing))
    // It wants a certain volume before it trips.
    for (let failures = 0; failures < 1_000; failures++) await caught(() => open.execute(failing))
    await forced.forceOpen('The bench wants it open')
    isolated.isolate()
    opened.open()
    const subjects = {
      holdfast: () => ours.execute(never),
      'held open': () => forced.execute(never),
      cockatiel: () => open.execute(never),
      'cockatiel, isolated': () => isolated.execute(never),
      opossum: () => opened.fire(),
    }
    for (const [subject, call] of Object.entries(subjects)) await requireRefusal(subject, call)
    await compareCalls(
      bench,
      name,
      Object.fromEntries(Object.entries(subjects).map(([subject, call]) => [subject, () => caught(call)])),
      [
        { ours: 'holdfast', against: 'cockatiel', aim: '<=0.2' },
        { ours: 'holdfast', against: 'cockatiel, isolated', aim: '<=0.2' },
        { ours: 'held open', against: 'cockatiel, isolated', aim: '<=0.2' },
      ],
    )
    await tellExchanges(name, 'refused')
  },
}

async function caught(call: () => Promise<unknown>): Promise<unknown> {
  try {
    return await call()
  } catch (error) {
    return error
  }
}

async function requireRefusal(subject: string, call: () => Promise<unknown>): Promise<void> {
  if (!(await caught(call) instanceof Error)) {
    throw new Error(`Cannot measure ${subject}: it let a call through`)
  }
}
