/** What a check finds, and what a check is. */
import type { Project } from '../../local/project.ts'

export interface Problem {
  /** File, with a line where there is one. */
  where: string
  message: string
  /** What to do about it, as a sentence. */
  fix: string
}

export interface Check {
  name: string
  /** Every problem there is; an empty list is good. Throws only when it cannot look. */
  find(project: Project): Promise<Problem[]>
}
