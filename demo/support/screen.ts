/** What a demo shows: lines for a person, or JSON lines for a program. Lines only ever follow each other, as in a log. */
import { print, type Style, styled } from '../../local/terminal/output.ts'

/** A cell of a row, as it is read and, beside it, as a program takes it. */
export interface Cell {
  text: string
  style?: Style
  value?: unknown
}

export interface Screen {
  /** What this is about, and how it is set up. */
  title(title: string, facts: readonly string[]): void
  /** Names of the columns and how many characters each is wide. */
  columns(names: Record<string, number>): void
  /** One row of the columns, each made of pieces. */
  row(cells: Record<string, Cell[]>): void
  /** Something happens: what was done to the system, or what it said. */
  note(text: string, facts?: Record<string, unknown>): void
  /** A claim, and whether it is so. */
  verdict(holds: boolean, claim: string, facts?: Record<string, unknown>): void
  /** How many claims did not hold. */
  readonly failures: number
}

export function createScreen(options: { json: boolean }): Screen {
  return options.json ? jsonScreen() : textScreen()
}

function textScreen(): Screen {
  let widths: Record<string, number> = {}
  let failures = 0
  let lastWasNote = false
  const gap = (isNote: boolean) => {
    if (isNote !== lastWasNote) print()
    lastWasNote = isNote
  }
  return {
    title(title, facts) {
      print(`\n${styled('bold', title)}\n`)
      for (const fact of facts) print(`  ${fact}`)
    },
    columns(names) {
      widths = names
      print(
        `\n  ${styled('dim', Object.entries(names).map(([name, width]) => name.padEnd(width)).join('  '))}`,
      )
    },
    row(cells) {
      gap(false)
      const texts = Object.entries(widths).map(([name, width]) => {
        const pieces = cells[name] ?? []
        const length = pieces.reduce((sum, { text }) => sum + [...text].length, 0)
        const shown = pieces.map(({ text, style }) => style === undefined ? text : styled(style, text)).join(
          '',
        )
        return shown + ' '.repeat(Math.max(0, width - length))
      })
      print(`  ${texts.join('  ')}`.trimEnd())
    },
    note(text) {
      gap(true)
      print(`  ${styled('cyan', '>')} ${text}`)
    },
    verdict(holds, claim) {
      if (!holds) failures++
      print(`  ${holds ? styled('green', '✓') : styled('red', '✗')} ${claim}`)
    },
    get failures() {
      return failures
    },
  }
}

function jsonScreen(): Screen {
  let failures = 0
  const say = (kind: string, what: object) => void print(JSON.stringify({ kind, ...what }))
  return {
    title: (title, facts) => say('title', { title, facts }),
    columns: () => {},
    row: (cells) =>
      say(
        'row',
        Object.fromEntries(
          Object.entries(cells).map((
            [name, pieces],
          ) => [name, pieces.map(({ text, value }) => value ?? text)]),
        ),
      ),
    note: (text, facts) => say('note', { text, ...facts }),
    verdict(holds, claim, facts) {
      if (!holds) failures++
      say('verdict', { holds, claim, ...facts })
    },
    get failures() {
      return failures
    },
  }
}
