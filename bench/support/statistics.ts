/** The little arithmetic that benches share. */

/** The middle value; the mean of the two middle ones of an even number. `RangeError` without values. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('Cannot take the median of no values')
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2
}

/**
 * Calls `measure` for each subject in turn, `rounds` times over, so that whatever disturbs the machine for a while
 * disturbs all of them; the results by subject.
 */
export async function interleaved<Subject, Result>(
  subjects: readonly Subject[],
  rounds: number,
  measure: (subject: Subject, round: number) => Promise<Result>,
): Promise<Map<Subject, Result[]>> {
  const results = new Map(subjects.map((subject): [Subject, Result[]] => [subject, []]))
  for (let round = 0; round < rounds; round++) {
    for (const subject of subjects) results.get(subject)!.push(await measure(subject, round))
  }
  return results
}
