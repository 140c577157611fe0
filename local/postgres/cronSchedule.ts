/** When a job of pg_cron runs next: pg_cron's syntax, read with croner. All times are UTC, as pg_cron's are. */
import { Cron } from 'croner'

/** A parsed schedule. `@reboot` runs when the runner starts and never again. */
export type Schedule =
  | { kind: 'calendar'; next(after: Date): Date | undefined }
  | { kind: 'interval'; everyMs: number }
  | { kind: 'reboot' }

/**
 * Understands five fields (with `$` for the last day of the month), `30 seconds`, and words like `@daily`.
 * @throws when it is none of these
 */
export function parseSchedule(text: string): Schedule {
  const schedule = text.trim()
  const seconds = /^(\d{1,2})\s+seconds?$/i.exec(schedule)?.[1]
  if (seconds !== undefined) return { kind: 'interval', everyMs: Number(seconds) * 1000 }
  if (schedule.toLowerCase() === '@reboot') return { kind: 'reboot' }
  const cron = new Cron(schedule.replace('$', 'L'), { timezone: 'UTC', mode: '5-part', paused: true })
  return { kind: 'calendar', next: (after) => cron.nextRun(after) ?? undefined }
}
