/** What a bench prints: one JSON object a line on standard output, and nothing else there. */
import type { Machine } from './machine.ts'

/** What one subject reached. */
export interface Figure {
  measure: string
  subject: string
  value: number
  unit: string
}

/** What was reached, against what was aimed at. */
export interface Verdict {
  measure: string
  /** The subject compared with, or what a count is held against. */
  against: string
  /** Ours divided by theirs; the value itself where that is a count or a duration. */
  ratio: number
  /** `>=0.7`, `<100` and the like. */
  aim: string
}

/** Prints as it hears, so that a bench that is cut short has said what it knew. */
export class Report {
  readonly #bench: string
  readonly #write: (line: string) => void

  constructor(bench: string, write: (line: string) => void) {
    this.#bench = bench
    this.#write = write
  }

  machine(machine: Machine): void {
    this.#print({ ...machine })
  }

  figure({ measure, subject, value, unit }: Figure): void {
    this.#print({ measure, subject, value: rounded(value), unit })
  }

  verdict({ measure, against, ratio, aim }: Verdict): void {
    this.#print({ measure, against, ratio: rounded(ratio), aim, met: meets(ratio, aim) })
  }

  #print(fields: Record<string, unknown>): void {
    this.#write(`${JSON.stringify({ bench: this.#bench, ...fields })}\n`)
  }
}

/** `RangeError` for an aim that is no comparison with a number. */
export function meets(value: number, aim: string): boolean {
  const [, comparison, limit] = /^(<=|>=|<|>)(\d+(?:\.\d+)?)$/.exec(aim) ?? []
  switch (comparison) {
    case '<=':
      return value <= Number(limit)
    case '>=':
      return value >= Number(limit)
    case '<':
      return value < Number(limit)
    case '>':
      return value > Number(limit)
    default:
      throw new RangeError(`Cannot judge ${value}: the aim "${aim}" is not of the form >=0.7`)
  }
}

/** Three digits that say something: more would claim a precision that no bench has. */
function rounded(value: number): number {
  return Math.abs(value) >= 1_000 ? Math.round(value) : Number(value.toPrecision(3))
}
