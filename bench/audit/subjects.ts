/** One server with a database for each way of auditing, so that whatever disturbs it disturbs all of them. */
import postgres from 'postgres'
import { readProcessUsage } from '../../local/functions/processUsage.ts'
import { localKeys } from '../../local/keys.ts'
import type { Cluster } from '../../local/postgres/cluster.ts'
import { type Sql, withConnection } from '../../local/postgres/connect.ts'
import { preparePlatform } from '../../local/postgres/platform.ts'
import { startDatabase } from '../support/database.ts'
import type { Bench } from '../support/suite.ts'
import { readSupaAudit } from './supaAudit.ts'
import { createIds, createTable, fill, type Table } from './tables.ts'

export type SubjectName = 'no auditing' | 'holdfast' | 'supa_audit'

export interface Subject {
  name: SubjectName
  /** With the rights of the tables' owner. */
  url: string
  /** One session of the owner's, which ends with the measure. */
  owner: Sql
  /** Bytes of everything that auditing keeps, indexes included. */
  trailBytes(): Promise<number>
  /** Rejects unless the trail holds so many more changes of the table than when the measure began. */
  expectRecorded(table: Table, changes: number): Promise<void>
}

export interface Subjects {
  server: Cluster
  /** Without auditing, Holdfast, and supa_audit where it was given. */
  all: readonly Subject[]
}

export interface SubjectOptions {
  tables: readonly Table[]
  /** Rows of each table from the start, which nobody has recorded. */
  rows: number
  /** How many ids are ready for the rows that the measure writes. */
  ids: number
  /** Leaves the peer out: it has nothing of the kind. */
  alone?: boolean
}

interface Auditing {
  database: string
  /** How a table is audited; where its changes are found, and in which tables they are. Neither where nothing is. */
  enable?: (table: string) => string
  trail?: { changesOf: (table: string) => string; tables: string }
}

const auditing: Record<SubjectName, Auditing> = {
  'no auditing': { database: 'plain' },
  holdfast: {
    database: 'postgres',
    enable: (table) => `select audit.enable('public.${table}')`,
    trail: {
      changesOf: (table) => `audit.database_changes where object_identity = 'public.${table}'`,
      tables: `select relid from pg_partition_tree('audit.database_changes') where isleaf`,
    },
  },
  supa_audit: {
    database: 'supa_audit',
    enable: (table) => `select audit.enable_tracking('public.${table}')`,
    trail: {
      changesOf: (table) => `audit.record_version where table_name = '${table}'`,
      tables: `select 'audit.record_version'::regclass as relid`,
    },
  },
}

/**
 * Nothing starts in the middle of one subject's turn: neither a vacuum nor a checkpoint, nor does a commit wake the
 * process that writes the log, which it does once so much of it is waiting. Each takes more than is measured.
 */
const serverSettings = {
  autovacuum: 'off',
  checkpoint_timeout: '1h',
  max_wal_size: '8GB',
  wal_writer_flush_after: '1GB',
}

export async function openSubjects(bench: Bench, options: SubjectOptions): Promise<Subjects> {
  const peer = options.alone ? undefined : await readSupaAudit(bench)
  const server = await startDatabase(bench)
  await withConnection(server.adminUrl(), 'bench', async (sql) => {
    await sql`select cron.unschedule(jobid) from cron.job`
    for (const [name, value] of Object.entries(serverSettings)) {
      await sql.unsafe(`alter system set ${name} = '${value}'`)
    }
    await sql`select pg_reload_conf()`
    await sql`create database plain owner postgres`
  })
  await preparePlatform({ adminUrl: server.adminUrl('plain'), jwtSecret: localKeys.jwtSecret })
  if (peer !== undefined) {
    await withConnection(
      server.adminUrl(),
      'bench',
      (sql) => sql`create database supa_audit template plain owner postgres`,
    )
    await withConnection(server.url('supa_audit'), 'bench', (sql) => sql.unsafe(peer.script))
  }
  const names: SubjectName[] = [
    'no auditing',
    'holdfast',
    ...peer === undefined ? [] : ['supa_audit' as const],
  ]
  const all: Subject[] = []
  for (const name of names) {
    all.push(await openSubject(bench, name, server.url(auditing[name].database), options))
  }
  return { server, all }
}

async function openSubject(
  bench: Bench,
  name: SubjectName,
  url: string,
  o: SubjectOptions,
): Promise<Subject> {
  const { enable, trail } = auditing[name]
  const owner = await openSession(bench, url, {})
  await owner.unsafe(createIds(o.ids))
  for (const table of o.tables) {
    await owner.unsafe(createTable(table))
    await owner.unsafe(fill(table, o.rows))
    if (enable !== undefined) await owner.unsafe(enable(table.name))
    await owner.unsafe(`vacuum analyze public.${table.name}`)
  }
  const number = async (query: string) => Number((await owner.unsafe(query))[0]?.number)
  const changesOf = (table: Table) =>
    trail === undefined ? 0 : number(`select count(*) as number from ${trail.changesOf(table.name)}`)
  const before = new Map<Table, number>()
  for (const table of o.tables) before.set(table, await changesOf(table))
  return {
    name,
    url,
    owner,
    trailBytes: async () =>
      trail === undefined
        ? 0
        : await number(`select sum(pg_total_relation_size(relid)) as number from (${trail.tables}) as trail`),
    async expectRecorded(table, changes) {
      if (trail === undefined) return
      const recorded = await changesOf(table) - before.get(table)!
      if (recorded !== changes) {
        throw new Error(
          `Cannot measure ${name}: it recorded ${recorded} of ${changes} changes of ${table.name}`,
        )
      }
    },
  }
}

/**
 * A session with settings, as PostgREST and Holdfast's client give them to each transaction. Its commits do not wait
 * for the disk unless told so: what that takes varies by more than is measured. Ends with the measure.
 */
export async function openSession(
  { resources }: Bench,
  url: string,
  settings: Record<string, string>,
  max = 1,
): Promise<Sql> {
  const sql = resources.adopt(
    postgres(url, {
      max,
      max_lifetime: null,
      onnotice() {},
      connection: {
        application_name: 'holdfast bench',
        search_path: 'public, extensions',
        synchronous_commit: 'off',
        ...settings,
      },
    }),
    (sql) => sql.end({ timeout: 5 }),
  )
  await Promise.all(Array.from({ length: max }, () => sql`select`))
  return sql
}

/** Processor time of the server's process for this session so far, in milliseconds; by the tick, 10 ms on Linux. */
export async function cpuTimeOf(session: Sql): Promise<() => Promise<number>> {
  const [backend] = await session<{ pid: number }[]>`select pg_backend_pid() as pid`
  return async () => (await readProcessUsage(backend!.pid))?.cpuMs ?? 0
}
