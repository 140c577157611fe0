/**
 * What is done beside the writes: sealing and verifying, in changes a second, and what a change of a table takes when
 * its trigger code is written anew with it, in milliseconds. Figures without an aim.
 */
import type { Sql } from '../../local/postgres/connect.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { contexts } from './context.ts'
import { openSession, openSubjects, type Subject } from './subjects.ts'
import { orders } from './tables.ts'

const changes = 100_000
const verifications = 3
const alterations = 10

export const upkeep: Measure = {
  name: 'upkeep',
  async run(bench) {
    const { all } = await openSubjects(bench, { tables: [orders], rows: 0, ids: changes, alone: true })
    await measureAlterations(bench, all)
    await measureSeals(bench, all.find(({ name }) => name === 'holdfast')!)
  },
}

async function measureAlterations({ report }: Bench, all: readonly Subject[]): Promise<void> {
  const results = await interleaved(all, alterations, async ({ owner }, round) => {
    const add = await millisecondsOf(
      owner,
      `alter table public.${orders.name} add column added_${round} text`,
    )
    const drop = await millisecondsOf(owner, `alter table public.${orders.name} drop column added_${round}`)
    return (add + drop) / 2
  })
  for (const [{ name }, times] of results) {
    report.figure({
      measure: 'upkeep, a column added or dropped',
      subject: name,
      value: median(times),
      unit: 'ms',
    })
  }
}

async function measureSeals(bench: Bench, subject: Subject): Promise<void> {
  const caller = await openSession(bench, subject.url, contexts['through a function'])
  const { into, values } = orders.row('ids.id')
  await caller.unsafe(`insert into public.${orders.name} (${into}) select ${values} from bench.ids`)

  const figure = (measure: string, value: number) =>
    bench.report.figure({ measure: `upkeep, ${measure}`, subject: subject.name, value, unit: 'changes/s' })
  const sealedAt = performance.now()
  const [sealed] = await subject.owner<{ changes: string }[]>`select changes from audit.seal()`
  if (Number(sealed?.changes) < changes) {
    throw new Error(`Cannot measure seals: ${sealed?.changes} were sealed`)
  }
  figure('sealing', Number(sealed?.changes) * 1_000 / (performance.now() - sealedAt))

  const rates: number[] = []
  for (let done = 0; done < verifications; done++) {
    bench.signal.throwIfAborted()
    const startedAt = performance.now()
    const [found] = await subject.owner<{ intact: boolean; problem: string; checked: string }[]>`
      select intact, problem, checked_changes as checked from audit.verify()`
    if (!found?.intact) throw new Error(`Cannot measure the verification: it says ${found?.problem}`)
    rates.push(Number(found.checked) * 1_000 / (performance.now() - startedAt))
  }
  figure('verifying', median(rates))
}

async function millisecondsOf(sql: Sql, statement: string): Promise<number> {
  const startedAt = performance.now()
  await sql.unsafe(statement)
  return performance.now() - startedAt
}
