/**
 * Inserts in a second with auditing on, as a share of those without, from several clients at once, each insert a
 * statement and a transaction of its own: over connections that wait for each answer, with commits that wait for the
 * disk and with commits that do not; and from loops on the server, where nothing but the database is measured.
 */
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { throughput as measureThroughput } from '../support/throughput.ts'
import { contexts } from './context.ts'
import { openSession, openSubjects, type Subject, type Subjects } from './subjects.ts'
import { orders } from './tables.ts'

const rounds = 3
const seconds = 0.6
const lanes = 8
/** In the table from the start. */
const rows = 10_000
const aim = '>=0.65'

/** Of the loops on the server. */
const sessions = 2
const perLoop = 100

export const throughput: Measure = {
  name: 'throughput',
  async run(bench) {
    const subjects = await openSubjects(bench, { tables: [orders], rows, ids: 0 })
    await measureClients(bench, subjects, 'commits on disk', 'on')
    await measureClients(bench, subjects, 'commits not awaited', 'off')
    await measureLoops(bench, subjects)
    for (const subject of subjects.all) {
      const [count] = await subject.owner.unsafe(`select count(*) as rows from public.${orders.name}`)
      await subject.expectRecorded(orders, Number(count?.rows) - rows)
    }
  },
}

async function measureClients(bench: Bench, { server, all }: Subjects, how: string, commit: string) {
  const { into, values } = orders.row('gen_random_uuid()')
  const text = `insert into public.${orders.name} (${into}) values (${values})`
  const writers = new Map<Subject, Write>()
  for (const subject of all) {
    const session = await openSession(
      bench,
      subject.url,
      { ...contexts['through a function'], synchronous_commit: commit },
      lanes,
    )
    const insert = () => session.unsafe(text, [], { prepare: true })
    writers.set(subject, async () => {
      const { perSecond, p50Ms } = await measureThroughput(insert, {
        lanes,
        seconds,
        server,
        signal: bench.signal,
      })
      return { perSecond, p50Ms }
    })
  }
  await compare(bench, `throughput of ${lanes} clients, ${how}`, writers)
}

async function measureLoops(bench: Bench, { all }: Subjects) {
  const writers = new Map<Subject, Write>()
  for (const subject of all) {
    await subject.owner.unsafe(loopOf(perLoop))
    const open = Array.from(
      { length: sessions },
      () => openSession(bench, subject.url, contexts['through a function']),
    )
    const loops = await Promise.all(open)
    writers.set(subject, async () => {
      const startedAt = performance.now()
      let done = 0
      await Promise.all(loops.map(async (session) => {
        while (performance.now() - startedAt < seconds * 1_000) {
          bench.signal.throwIfAborted()
          await session.unsafe('call bench.insert_some()')
          done += perLoop
        }
      }))
      return { perSecond: done * 1_000 / (performance.now() - startedAt) }
    })
  }
  await compare(bench, `throughput of ${sessions} loops`, writers)
}

function loopOf(count: number): string {
  const { into, values } = orders.row('gen_random_uuid()')
  return `
    create procedure bench.insert_some() language plpgsql as $$
    begin
      for number in 1 .. ${count} loop
        insert into public.${orders.name} (${into}) values (${values});
        commit;
      end loop;
    end $$;
    grant execute on procedure bench.insert_some() to authenticated`
}

type Write = () => Promise<{ perSecond: number; p50Ms?: number }>

async function compare(
  { report }: Bench,
  measure: string,
  writers: ReadonlyMap<Subject, Write>,
): Promise<void> {
  const subjects = [...writers.keys()]
  // Opens, plans, and lets the compiler do its work.
  for (const write of writers.values()) await write()
  const results = await interleaved(subjects, rounds, (subject) => writers.get(subject)!())
  const speed = (subject: Subject) => median(results.get(subject)!.map(({ perSecond }) => perSecond))
  for (const subject of subjects) {
    report.figure({ measure, subject: subject.name, value: speed(subject), unit: '1/s' })
  }
  for (const subject of subjects) {
    const waits = results.get(subject)!.map(({ p50Ms }) => p50Ms).filter((ms) => ms !== undefined)
    if (waits.length === 0) continue
    report.figure({ measure: `${measure}, p50`, subject: subject.name, value: median(waits), unit: 'ms' })
  }
  const [plain, ...audited] = subjects
  for (const subject of audited) {
    const kept = speed(subject) / speed(plain!)
    if (subject.name === 'holdfast') {
      report.verdict({ measure: `${measure}, kept`, against: 'no auditing', ratio: kept, aim })
    } else report.figure({ measure: `${measure}, kept`, subject: subject.name, value: kept, unit: 'share' })
  }
}
