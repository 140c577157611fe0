/** What the set-up of a run hands to every test file. */
import { inject } from 'vitest'

/** One running PostgreSQL of the test run. */
export interface TestPostgres {
  /** Major version: 15, 17, … */
  major: number
  source: 'installed' | 'embedded'
  /** The real pg_cron; otherwise the stand-in with the same SQL interface. */
  hasCron: boolean
  port: number
  /** Database `postgres` with the rights of a hosted project's `postgres`: no superuser. */
  url: string
  /** Database `postgres` as the platform's superuser. */
  adminUrl: string
  /** The database that fresh ones are cloned from: platform, migrations, seed. */
  template: string
  dataDir: string
  logFile: string
}

declare module 'vitest' {
  interface ProvidedContext {
    postgres: TestPostgres[]
    /** Which files were asked for; absent when vitest was started without `npm test`. */
    filters?: string[]
    /** Directory of this run; removed with everything in it at the end. */
    runDir: string
  }
}

/** The servers of this run, the one that tests use by default first; fails where the run has started none. */
export function providedPostgres(): [TestPostgres, ...TestPostgres[]] {
  const [first, ...others] = inject('postgres')
  if (first === undefined) {
    throw new Error(
      'This run has no PostgreSQL: a file in tests/unit may not need one, move the test to another folder',
    )
  }
  return [first, ...others]
}
