/** What a demo shows: lines for a person, or JSON lines for a program. Lines only ever follow each other, as in a log. */
import { print, type Style, styled } from '../../local/terminal/output.ts'

/** A piece of a cell, as it is read and, beside it, as a program takes it. */
export interface Cell {
  text: string
  style?: Style
  /** Of a cell in which any piece has one, a program takes these and no texts. */
  value?: unknown
}

/** Names of columns and how many characters each is wide. */
export type Columns = Record<string, number>
export type Row = Record<string, Cell[]>

export interface Screen {
  /** What this is about, and how it is set up. */
  title(title: string, facts: readonly string[]): void
  /** What follows has a heading of its own. */
  section(title: string): void
  /** What the rows that follow are made of; `details` are columns of their own, under the second. */
  columns(names: Columns, details?: Columns): void
  /** One row of the columns, each made of pieces, and below it what belongs to it. */
  row(cells: Row, details?: readonly Row[]): void
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
  let widths: Columns = {}
  let detailWidths: Columns | undefined
  let failures = 0
  let lastWasNote = false
  const gap = (isNote: boolean) => {
    if (isNote !== lastWasNote) print()
    lastWasNote = isNote
  }
  const heading = (names: Columns) => styled('dim', lineOf(names, namesOf(names)))
  const indent = () => ' '.repeat((Object.values(widths)[0] ?? 0) + 2)
  return {
    title(title, facts) {
      print(`\n${styled('bold', title)}\n`)
      for (const fact of facts) print(`  ${fact}`)
    },
    section(title) {
      print(`\n${styled('bold', title)}\n`)
      lastWasNote = true
    },
    columns(names, details) {
      widths = names
      detailWidths = details
      lastWasNote = false
      print(`\n  ${heading(names)}`)
      if (details !== undefined) print(`  ${indent()}${heading(details)}`)
    },
    row(cells, details = []) {
      gap(false)
      print(`  ${lineOf(widths, cells)}`)
      for (const detail of details) print(`  ${indent()}${lineOf(detailWidths ?? {}, detail)}`)
    },
    note(text) {
      gap(true)
      print(`  ${styled('cyan', '>')} ${wrapped(text)}`)
    },
    verdict(holds, claim) {
      if (!holds) failures++
      print(`  ${holds ? styled('green', '✓') : styled('red', '✗')} ${wrapped(claim)}`)
    },
    get failures() {
      return failures
    },
  }
}

function lineOf(widths: Columns, cells: Row): string {
  const texts = Object.entries(widths).map(([name, width]) => {
    const pieces = cells[name] ?? []
    const length = pieces.reduce((sum, { text }) => sum + [...text].length, 0)
    const shown = pieces.map(({ text, style }) => style === undefined ? text : styled(style, text)).join('')
    return shown + ' '.repeat(Math.max(0, width - length))
  })
  return texts.join('  ').trimEnd()
}

function namesOf(columns: Columns): Row {
  return Object.fromEntries(Object.keys(columns).map((name) => [name, [{ text: name }]]))
}

/** Broken between words, so that with its mark it stays within 100 columns; what follows stands under its beginning. */
function wrapped(text: string): string {
  const lines = ['']
  for (const word of text.split(' ')) {
    const last = lines.at(-1)!
    if (last !== '' && [...last].length + 1 + [...word].length > 96) lines.push(word)
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`
  }
  return lines.join('\n    ')
}

function jsonScreen(): Screen {
  let failures = 0
  const say = (kind: string, what: object) => void print(JSON.stringify({ kind, ...what }))
  return {
    title: (title, facts) => say('title', { title, facts }),
    section: (title) => say('section', { title }),
    columns: () => {},
    row: (cells, details) => say('row', { ...valuesOf(cells), details: details?.map(valuesOf) }),
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

function valuesOf(cells: Row): Record<string, unknown[]> {
  const taken = Object.entries(cells).map(([name, pieces]) => {
    const values = pieces.flatMap(({ value }) => value === undefined ? [] : [value])
    return [name, values.length > 0 ? values : pieces.map(({ text }) => text)]
  })
  return Object.fromEntries(taken)
}
