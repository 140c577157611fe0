/** How the tests run; `npm test` (tests/main.ts) is the way to start them. */
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'
import { patientForks } from './support/patientForks.ts'

export default defineConfig({
  root: fileURLToPath(new URL('..', import.meta.url)),
  // Vitest remembers here how long each file took, to begin with the slow ones.
  cacheDir: '.local/vite',
  test: {
    include: ['tests/**/*.test.ts'],
    globalSetup: ['tests/globalSetup.ts'],
    setupFiles: ['tests/support/afterFile.ts'],
    // A process for each file: what it leaves behind can be found, and a crash takes no other file with it.
    pool: Deno.env.has('DENO_COVERAGE_DIR') ? patientForks : 'forks',
    isolate: true,
    // One more than there are cores: many files wait for something most of the time.
    maxWorkers: navigator.hardwareConcurrency + 1,
    sequence: { sequencer: longWaitsFirst() },
    testTimeout: 15_000,
    hookTimeout: 30_000,
    teardownTimeout: 20_000,
    // Modules load as Deno loads them in a function: no bundler in between, and coverage is the runtime's own.
    experimental: { viteModuleRunner: false, nodeLoader: false },
    reporters: ['default'],
    passWithNoTests: false,
    allowOnly: false,
    restoreMocks: true,
  },
})

/** Storms, and pg_cron, which runs jobs at the turn of a minute: everything else fits beside them if they begin first. */
const waiting = /\/(db\/platformCron|faults\/(bank|orders|guardsPostgres|limits)|e2e\/demo)\.test\.ts$/

function longWaitsFirst() {
  return class extends BaseSequencer {
    override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
      const waits = ({ moduleId }: TestSpecification) => Number(waiting.test(moduleId))
      return (await super.sort(files)).sort((a, b) => waits(b) - waits(a))
    }
  }
}
