/** Scheduled jobs: pg_cron itself where the server has it, else the stand-in with its runner. */
import { beforeAll, describe, expect, test } from 'vitest'
import { startCronRunner } from '../../local/postgres/cronRunner.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { closeAfterFile } from '../support/leftovers.ts'
import type { TestPostgres } from '../support/provided.ts'
import { asCaller, openSql, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'

onEachPostgres('cron', (pg) => {
  let db: FreshDatabase
  let sql: Sql

  beforeAll(async () => {
    db = await freshDatabase(pg.major)
    sql = openSql(db.url)
  })

  // First, because it takes longest: pg_cron starts jobs at the turn of a minute.
  if (pg.hasCron) theServerRunsJobs(pg)
  else theRunnerRunsJobs(() => db)

  test('is pg_cron itself where the server has it, in the database that it serves and in every clone', async () => {
    for (const database of [sql, openSql(pg.url)]) {
      const [row] = await database`
        select lanname = 'c' as real from pg_proc join pg_language as language on language.oid = prolang
        where pg_proc.oid = 'cron.schedule(text, text)'::regprocedure`
      expect(row).toEqual({ real: pg.hasCron })
    }
  })

  test('functions take what the hosted extension takes', async () => {
    const rows = await sql<{ signature: string }[]>`
      select proname || '(' || pg_get_function_identity_arguments(oid) || ') ' || pg_get_function_result(oid)
        as signature
      from pg_proc where pronamespace = 'cron'::regnamespace and prorettype <> 'trigger'::regtype`
    // Names left out; pg_cron before 1.5 has `name` where later ones have `text`.
    const signatures = rows.map((row) =>
      row.signature.replaceAll(/\w+ (?=text|name|bigint|boolean)/g, '').replace('(name)', '(text)')
    )
    expect(signatures).toEqual(expect.arrayContaining([
      'schedule(text, text) bigint',
      'schedule(text, text, text) bigint',
      'schedule_in_database(text, text, text, text, text, boolean) bigint',
      'unschedule(bigint) boolean',
      'unschedule(text) boolean',
      'alter_job(bigint, text, text, text, text, boolean) void',
    ]))
  })

  test('a job is scheduled, changed and taken off by its name', async () => {
    const [first] = await sql`select cron.schedule('nightly', '0 3 * * *', 'select 1') as id`
    const [second] = await sql`select cron.schedule('nightly', '30 3 * * *', 'select 2') as id`
    expect(second?.id).toBe(first?.id)
    const [job] = await sql`
      select jobname, schedule, command, database, username, active from cron.job where jobname = 'nightly'`
    expect(job).toEqual({
      jobname: 'nightly',
      schedule: '30 3 * * *',
      command: 'select 2',
      // pg_cron notes the one database that it serves.
      database: pg.hasCron ? 'postgres' : db.name,
      username: 'postgres',
      active: true,
    })
    await sql`select cron.alter_job(${first?.id}, active := false)`
    expect(await sql`select active from cron.job where jobname = 'nightly'`).toEqual([{ active: false }])
    expect(await sql`select cron.unschedule('nightly') as gone`).toEqual([{ gone: true }])
    expect(await sql`select from cron.job where jobname = 'nightly'`).toHaveLength(0)
  })

  test('an expression that is no schedule is refused', async () => {
    await expect(sql`select cron.schedule('broken', 'every now and then', 'select 1')`)
      .rejects.toThrow('invalid schedule')
  })

  test('taking off a job that is not there is an error', async () => {
    await expect(sql`select cron.unschedule('nowhere')`).rejects.toThrow('could not find valid entry')
  })

  test.each(['anon', 'authenticated', 'service_role'] as const)('%s may not schedule', async (role) => {
    await expect(asCaller(sql, { role }, (tx) => tx`select cron.schedule('theirs', '* * * * *', 'select 1')`))
      .rejects.toMatchObject({ code: '42501' })
  })
})

/** In the one database of the server that its launcher serves. */
function theServerRunsJobs(pg: TestPostgres): void {
  test('pg_cron runs a job as its owner and writes how it went', async () => {
    const sql = openSql(pg.url)
    const good = `good_${Deno.pid}`
    const bad = `bad_${Deno.pid}`
    closeAfterFile({
      name: 'the scheduled jobs',
      close: async () => {
        await sql`select cron.unschedule(jobid) from cron.job where jobname in (${good}, ${bad})`
      },
    })
    await sql`select cron.schedule(${good}, '* * * * *', 'select current_user')`
    await sql`select cron.schedule(${bad}, '* * * * *', 'select 1 / 0')`
    expect(await firstEndedRun(sql, good))
      .toEqual({ status: 'succeeded', username: 'postgres', message: 'SELECT 1' })
    expect(await firstEndedRun(sql, bad))
      .toEqual({
        status: 'failed',
        username: 'postgres',
        message: expect.stringContaining('division by zero'),
      })
  }, 75_000)
}

async function firstEndedRun(sql: Sql, jobName: string) {
  return await waitFor(async () => {
    const runs = await sql`
      select run.status, run.username, run.return_message as message
      from cron.job_run_details as run join cron.job using (jobid)
      where jobname = ${jobName} order by runid`
    const ended = runs.find(({ status }) => ['succeeded', 'failed'].includes(status))
    if (!ended) throw new Error(`${runs.length} runs: ${Deno.inspect(runs)}`)
    return ended
  }, { what: `pg_cron to run the job ${jobName}`, timeoutMs: 70_000, everyMs: 100 })
}

function theRunnerRunsJobs(db: () => FreshDatabase): void {
  describe('the runner of the stand-in', () => {
    test('runs jobs as their owner and writes how it went', async () => {
      const sql = openSql(db().url)
      const runner = await startCronRunner({ adminUrl: db().adminUrl })
      closeAfterFile({ name: 'the cron runner', close: () => runner.close() })
      await sql`create table public.witnessed (who text, at timestamptz default clock_timestamp())`
      await sql`select cron.schedule('good', '1 second', 'insert into public.witnessed values (current_user)')`
      await sql`select cron.schedule('bad', '1 second', 'select 1 / 0')`
      const runs = await waitFor(async () => {
        const rows = await sql`
          select distinct jobname, status, run.username
          from cron.job_run_details as run join cron.job using (jobid)
          where status in ('succeeded', 'failed') order by jobname desc`
        return rows.length === 2 ? rows : undefined
      }, { what: 'the runner to run both jobs' })
      expect(runs).toEqual([
        { jobname: 'good', status: 'succeeded', username: 'postgres' },
        { jobname: 'bad', status: 'failed', username: 'postgres' },
      ])
      expect(await sql`select distinct who from public.witnessed`).toEqual([{ who: 'postgres' }])
      const [failure] =
        await sql`select return_message as message from cron.job_run_details where status = 'failed'`
      expect(failure?.message).toContain('division by zero')
    })
  })
}
