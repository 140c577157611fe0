/** What a suite is made of. Each suite is a file or a folder of its own, and one line in `bench/main.ts`. */
import type { Progress } from '../../local/progress.ts'
import type { Project } from '../../local/project.ts'
import type { Report } from './report.ts'

export interface Suite {
  /** npm packages whose versions belong in the first line. */
  packages: readonly string[]
  /** Its figures depend on PostgreSQL, whose version belongs there as well. */
  postgres?: boolean
  measures: readonly Measure[]
}

export interface Measure {
  /** What `--only` takes. Everything the measure prints has a name that begins with it. */
  name: string
  /** Prints its figures and verdicts. What it starts, it gives to `bench.resources`. */
  run(bench: Bench): Promise<void>
}

/** What a measure is given. */
export interface Bench {
  project: Project
  report: Report
  progress: Progress
  /** Closed after the measure, also when it fails or when the bench is interrupted; the last added first. */
  resources: AsyncDisposableStack
  /** Aborted when the bench is interrupted; for programs that run to their end. */
  signal: AbortSignal
  /** Where supa_audit lies, which is no package: a checkout, or its SQL file. Undefined: not compared with. */
  supaAudit?: string
}
