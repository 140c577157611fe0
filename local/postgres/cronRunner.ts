/**
 * Runs the jobs of the pg_cron stand-in, as pg_cron's background worker would: as the job's user, never twice at a time,
 * each run recorded in `cron.job_run_details`.
 */
import postgres from 'postgres'
import { connect, type Sql } from './connect.ts'
import { parseSchedule, type Schedule } from './cronSchedule.ts'
import { hasRealCron } from './platform.ts'

export interface CronRunner {
  /** Stops scheduling and cancels what runs; resolves when nothing is left. */
  close(): Promise<void>
}

interface JobRow {
  jobid: string
  schedule: string
  command: string
  database: string
  username: string
}

interface ScheduledJob {
  row: JobRow
  schedule: Schedule
  timer?: ReturnType<typeof setTimeout>
  running: boolean
  /** A run fell due while the one before it was still going: it follows at once. */
  due: boolean
}

/** Jobs change by notification; this is how long a change can go unseen should the notification be lost. */
const sweepMs = 30_000
/** A timer holds 24 days at most; a longer wait is looked at again each hour. */
const longestTimerMs = 3_600_000

/**
 * Starts running the jobs. Does nothing in a database with pg_cron itself. Two runners on one database take turns: the
 * second waits until the first has gone. A database that is away is waited for.
 */
export async function startCronRunner(o: { adminUrl: string }): Promise<CronRunner> {
  const sql = connect(o.adminUrl, 'cron runner')
  if (await hasRealCron(sql)) {
    await sql.end()
    return { close: () => Promise.resolve() }
  }
  const runner = new Runner(o.adminUrl, sql)
  await runner.start()
  return runner
}

class Runner implements CronRunner {
  readonly #adminUrl: string
  readonly #sql: Sql
  readonly #jobs = new Map<string, ScheduledJob>()
  readonly #runs = new Set<Promise<void>>()
  readonly #stop = new AbortController()
  #reloading: Promise<void> = Promise.resolve()
  #sweep?: ReturnType<typeof setInterval>
  #inCharge = false

  constructor(adminUrl: string, sql: Sql) {
    this.#adminUrl = adminUrl
    this.#sql = sql
  }

  async start(): Promise<void> {
    await this.#reload()
    await this.#sql.listen('holdfast_cron', () => this.#reloadSoon(), () => this.#reloadSoon())
    this.#sweep = setInterval(() => this.#reloadSoon(), sweepMs)
  }

  async close(): Promise<void> {
    clearInterval(this.#sweep)
    this.#stop.abort()
    for (const job of this.#jobs.values()) clearTimeout(job.timer)
    await this.#reloading
    await Promise.all(this.#runs)
    await this.#sql.end({ timeout: 5 })
  }

  /** One reload after another. One that fails (the server restarts) is made good by the next sweep. */
  #reloadSoon(): void {
    this.#reloading = this.#reloading.then(() => this.#reload()).catch(() => {})
  }

  async #reload(): Promise<void> {
    if (this.#stop.signal.aborted || !(await this.#takeCharge())) return this.#forgetAll()
    const rows = await this.#sql<JobRow[]>`
      select jobid::text, schedule, command, database, username
      from cron.job
      where active
    `
    const current = new Set(rows.map(({ jobid }) => jobid))
    for (const id of this.#jobs.keys()) if (!current.has(id)) this.#forget(id)
    for (const row of rows) this.#remember(row)
  }

  /** The lock belongs to the connection, so it is free as soon as its holder has died. */
  async #takeCharge(): Promise<boolean> {
    const [row] = await this.#sql`
      select pg_try_advisory_lock(hashtextextended('holdfast cron runner', 0)) as taken
    `
    const wasInCharge = this.#inCharge
    this.#inCharge = row?.taken === true
    if (this.#inCharge && !wasInCharge) {
      await this.#sql`
        update cron.job_run_details
        set status = 'failed', return_message = 'server restarted', end_time = clock_timestamp()
        where status in ('starting', 'running')
      `
    }
    return this.#inCharge
  }

  #remember(row: JobRow): void {
    const known = this.#jobs.get(row.jobid)
    if (known !== undefined) {
      const unchanged = known.row.schedule === row.schedule
      known.row = row
      if (unchanged) return
      this.#forget(row.jobid)
    }
    const job: ScheduledJob = { row, schedule: parseSchedule(row.schedule), running: false, due: false }
    this.#jobs.set(row.jobid, job)
    if (job.schedule.kind === 'reboot') {
      if (known === undefined) this.#begin(job)
    } else this.#plan(job, new Date())
  }

  #forget(id: string): void {
    clearTimeout(this.#jobs.get(id)?.timer)
    this.#jobs.delete(id)
  }

  #forgetAll(): void {
    for (const id of [...this.#jobs.keys()]) this.#forget(id)
  }

  /** Sets the timer for the first time after `after` that the schedule names. */
  #plan(job: ScheduledJob, after: Date): void {
    const at = job.schedule.kind === 'calendar'
      ? job.schedule.next(after)
      : job.schedule.kind === 'interval'
      ? new Date(after.getTime() + job.schedule.everyMs)
      : undefined
    if (at === undefined) return
    const wait = () => {
      const delay = at.getTime() - Date.now()
      job.timer = delay > longestTimerMs ? setTimeout(wait, longestTimerMs) : setTimeout(() => {
        this.#plan(job, at)
        this.#begin(job)
      }, Math.max(delay, 0))
    }
    wait()
  }

  #begin(job: ScheduledJob): void {
    if (job.running) {
      job.due = true
      return
    }
    job.running = true
    job.due = false
    const run = this.#run(job.row).catch(() => {
      // The record of the run could not be written: the server is away, and the next start marks it as failed.
    }).finally(() => {
      this.#runs.delete(run)
      job.running = false
      if (job.due && this.#jobs.get(job.row.jobid) === job && !this.#stop.signal.aborted) this.#begin(job)
    })
    this.#runs.add(run)
  }

  async #run(row: JobRow): Promise<void> {
    const [started] = await this.#sql<{ runid: string }[]>`
      insert into cron.job_run_details (jobid, database, username, command, status)
      values (${row.jobid}, ${row.database}, ${row.username}, ${row.command}, 'starting')
      returning runid
    `
    const runid = started?.runid ?? null
    const outcome = await this.#execute(row, async (pid) => {
      await this.#sql`
        update cron.job_run_details
        set status = 'running', job_pid = ${pid}, start_time = clock_timestamp()
        where runid = ${runid}
      `
    })
    await this.#sql`
      update cron.job_run_details
      set status = ${outcome.status}, return_message = ${outcome.message}, end_time = clock_timestamp()
      where runid = ${runid}
    `
  }

  async #execute(row: JobRow, onStart: (pid: number) => Promise<void>) {
    const url = new URL(this.#adminUrl)
    url.pathname = `/${encodeURIComponent(row.database)}`
    const client = connect(url.href, `cron job ${row.jobid}`)
    try {
      await onStart(await becomeUser(client, row.username))
      const query = client.unsafe(row.command).simple()
      const cancel = () => query.cancel()
      this.#stop.signal.addEventListener('abort', cancel)
      try {
        return { status: 'succeeded', message: summary(await query) }
      } finally {
        this.#stop.signal.removeEventListener('abort', cancel)
      }
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error)
      const message = error instanceof postgres.PostgresError ? `${error.severity}:  ${detail}` : detail
      return { status: 'failed', message }
    } finally {
      await client.end({ timeout: 5 })
    }
  }
}

/** Makes the session what it would be had the user logged in: the user's rights, and the settings of its role. */
async function becomeUser(client: Sql, username: string): Promise<number> {
  await client`
    select set_config(
      split_part(line, '=', 1),
      substr(line, strpos(line, '=') + 1),
      false
    )
    from pg_db_role_setting
    cross join lateral unnest(setconfig) as line
    where setrole = (select oid from pg_roles where rolname = ${username})
    and setdatabase in (0, (select oid from pg_database where datname = current_database()))
    order by setdatabase
  `
  await client`set session authorization ${client(username)}`
  const [row] = await client<{ pid: number }[]>`select pg_backend_pid() as pid`
  return row?.pid ?? 0
}

/** What pg_cron writes of a run that went well: the number of rows, or the tag of the command. */
function summary(result: postgres.RowList<postgres.Row[]> | postgres.RowList<postgres.Row[]>[]): string {
  const last = Array.isArray(result) && !('command' in result) ? result.at(-1) : result
  if (last === undefined || !('command' in last)) return ''
  const { command, count, columns } = last
  if (columns?.length) return `${count} row${count === 1 ? '' : 's'}`
  if (command === 'INSERT') return `INSERT 0 ${count}`
  return command === 'UPDATE' || command === 'DELETE' ? `${command} ${count}` : command ?? ''
}
