/** What a demo is: something to look at that also finds out whether it is true. */
import type { Progress } from '../../local/progress.ts'
import type { Screen } from './screen.ts'

export interface DemoContext {
  progress: Progress
  screen: Screen
  /** Closed when the demo ends, however it ends. */
  resources: AsyncDisposableStack
  /** Fires when the person has seen enough. */
  signal: AbortSignal
}

export interface Demo {
  /** What is shown, in one line. */
  summary: string
  /** Shows it; each claim is a verdict on the screen. */
  run(context: DemoContext): Promise<void>
}
