/** Tells the person at the terminal which step is running: a spinner on a terminal, one plain line a step otherwise. */
import process from 'node:process'
import { styleText } from 'node:util'
import type { SpinnerResult } from '@clack/prompts'
import { printError } from './terminal/output.ts'

export interface Progress {
  /** A step begins, named as something that goes on ("Starting PostgreSQL"); the step before it has ended well. */
  step(name: string): void
  /** A remark that stays on the screen. The current step goes on. */
  info(text: string): void
  /** The current step has ended well; `text` replaces its name. Without an open step this does nothing. */
  done(text?: string): void
}

/** What the commands themselves hold: they also say how it ended when it did not end well. */
export interface ProgressDisplay extends Progress {
  /** The current step did not end well; nothing is said when none is open. */
  fail(): void
}

export interface ProgressEvent {
  kind: 'step' | 'info' | 'done'
  text?: string
}

/** Says nothing: for tests, and for commands whose output is read by a program. */
export const silentProgress: ProgressDisplay = { step() {}, info() {}, done() {}, fail() {} }

/**
 * Progress for a person. The spinner needs a keyboard that is not ours to read: it would put it into raw mode and
 * end the process at Ctrl-C before anything is stopped. `run.mjs` therefore starts us without one.
 */
export async function terminalProgress(): Promise<ProgressDisplay> {
  if (!Deno.stderr.isTerminal() || Deno.stdin.isTerminal()) return plainProgress()
  return spinnerProgress(await import('@clack/prompts'))
}

/** Hands each event on, so that a process in the background can show its progress in another one's terminal. */
export function relayedProgress(send: (event: ProgressEvent) => void): ProgressDisplay {
  return {
    step: (text) => send({ kind: 'step', text }),
    info: (text) => send({ kind: 'info', text }),
    done: (text) => send({ kind: 'done', text }),
    fail() {},
  }
}

/** Shows an event that `relayedProgress` sent. */
export function showEvent(progress: Progress, event: ProgressEvent): void {
  if (event.kind === 'done') progress.done(event.text)
  else progress[event.kind](event.text ?? '')
}

function spinnerProgress({ log, spinner }: typeof import('@clack/prompts')): ProgressDisplay {
  let current: { name: string; spinner: SpinnerResult; startedAt: number } | undefined

  function begin(name: string, startedAt = performance.now()) {
    const shown = spinner({ output: process.stderr, withGuide: false, cancelMessage: 'Stopping' })
    shown.start(name)
    current = { name, spinner: shown, startedAt }
  }
  function done(text?: string) {
    current?.spinner.stop(`${text ?? current.name}  ${took(current.startedAt)}`)
    current = undefined
  }
  return {
    step(name) {
      done()
      begin(name)
    },
    info(text) {
      const open = current
      open?.spinner.clear()
      log.info(text, { output: process.stderr, withGuide: false, spacing: 0 })
      if (open !== undefined) begin(open.name, open.startedAt)
    },
    done,
    fail() {
      current?.spinner.error(current.name)
      current = undefined
    },
  }
}

function plainProgress(): ProgressDisplay {
  let current: string | undefined
  return {
    step(name) {
      current = name
      printError(name)
    },
    info: (text) => void printError(text),
    done(text) {
      if (text !== undefined && current !== undefined) printError(text)
      current = undefined
    },
    fail() {
      current = undefined
    },
  }
}

function took(startedAt: number): string {
  return styleText('dim', `${((performance.now() - startedAt) / 1000).toFixed(1)} s`)
}
