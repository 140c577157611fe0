/** What auditing adds to a write, ours beside the peer's. */
import type { Bench } from '../support/suite.ts'
import type { SubjectName } from './subjects.ts'

export interface Added {
  measure: string
  unit: string
  /** Of one write, the auditing included. */
  values: ReadonlyMap<SubjectName, number>
  /** For what ours adds, divided by what theirs adds. Without one nothing is judged. */
  aim?: string
}

/** Prints what a write takes in each subject and what auditing adds to it; the verdict only where the peer is there. */
export function reportAdded({ report }: Bench, { measure, unit, values, aim }: Added): void {
  const plain = values.get('no auditing')!
  for (const [subject, value] of values) report.figure({ measure, subject, value, unit })
  const added = new Map(
    [...values].filter(([name]) => name !== 'no auditing')
      .map(([name, value]) => [name, value - plain]),
  )
  for (const [subject, value] of added) report.figure({ measure: `${measure}, added`, subject, value, unit })
  const theirs = added.get('supa_audit')
  if (aim === undefined || theirs === undefined) return
  report.verdict({
    measure: `${measure}, added`,
    against: 'supa_audit',
    ratio: added.get('holdfast')! / theirs,
    aim,
  })
}
