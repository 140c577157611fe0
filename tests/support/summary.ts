/** The counts of a test run: what the last line of `npm test` says and what decides its exit code. */
import type { Reporter, SerializedError, TestModule, TestSuite, Vitest } from 'vitest/node'

export interface Summary {
  passed: number
  failed: number
  skipped: number
}

/** `12 passed, 0 failed`, and the skipped ones only where there are any. */
export function formatSummary({ passed, failed, skipped }: Summary): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}

/** A run in which nothing was tested has shown nothing: it does not count as good. */
export function isGood({ passed, failed }: Summary): boolean {
  return failed === 0 && passed > 0
}

/**
 * Counts the tests of a run. What fails outside a test counts as a failure as well: a file that cannot be loaded, a
 * hook, an error that nobody caught.
 */
export class SummaryReporter implements Reporter {
  readonly summary: Summary = { passed: 0, failed: 0, skipped: 0 }
  /** Called when vitest is set up, before it starts anything. */
  onStart: (vitest: Vitest) => void = () => {}

  onInit(vitest: Vitest): void {
    this.onStart(vitest)
  }

  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly SerializedError[]): void {
    this.summary.failed += unhandledErrors.length
    for (const module of modules) {
      this.#count(module)
      for (const suite of module.children.allSuites()) this.#countHooks(suite)
    }
  }

  #count(module: TestModule): void {
    this.#countHooks(module)
    for (const test of module.children.allTests()) {
      const { state } = test.result()
      // A test that never ran because its file was cut short is pending; its cause is counted above.
      this.summary[state === 'pending' ? 'skipped' : state]++
    }
  }

  /** Errors of the file or the group itself: loading, beforeAll, afterAll. */
  #countHooks(group: TestModule | TestSuite): void {
    if (group.errors().length > 0) this.summary.failed++
  }
}
