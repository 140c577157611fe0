/**
 * A route that does nothing, over HTTP: what Holdfast itself costs a request, beside bare Hono and bare Deno.serve.
 * The load shares the machine with the server and may be the slower of the two, which flatters whoever is slower:
 * therefore the processor time that the server alone takes for a request is printed, too.
 */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type DenoServer, startDenoServer } from '../support/denoServer.ts'
import { load, type LoadResult } from '../support/load.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'

const name = 'no-op route'
const subjects = ['holdfast', 'hono', 'deno'] as const
const rounds = 10
const seconds = 2
/** Enough that the server never waits for a client, few enough that latency is more than a queue's length. */
const connections = 16

type Subject = typeof subjects[number]

interface Round extends LoadResult {
  cpuMicroseconds: number
}

export const noopRoute: Measure = {
  name,
  async run(bench) {
    const servers = await startServers(bench)
    // The first second is the compiler's.
    for (const subject of subjects) await measure(servers[subject], 1, bench.signal)
    const results = await interleaved(
      subjects,
      rounds,
      (subject) => measure(servers[subject], seconds, bench.signal),
    )

    const figure = (measure: string, unit: string, value: (round: Round) => number) => {
      for (const [subject, all] of results) {
        bench.report.figure({ measure, subject, value: median(all.map(value)), unit })
      }
    }
    figure(name, 'requests/s', (round) => round.requestsPerSecond)
    const speed = (subject: Subject) => median(results.get(subject)!.map((round) => round.requestsPerSecond))
    bench.report.verdict({
      measure: name,
      against: 'hono',
      ratio: speed('holdfast') / speed('hono'),
      aim: '>=0.7',
    })
    figure(`${name} p50`, 'ms', (round) => round.p50Ms)
    figure(`${name} p99`, 'ms', (round) => round.p99Ms)
    figure(`${name} server CPU`, 'us/request', (round) => round.cpuMicroseconds)
  },
}

async function startServers({ project, resources }: Bench): Promise<Record<Subject, DenoServer>> {
  const logs = resources.adopt(
    Deno.makeTempDirSync({ prefix: 'holdfast-bench-' }),
    (directory) => Deno.remove(directory, { recursive: true }),
  )
  const script = fileURLToPath(new URL('./subject.ts', import.meta.url))
  const start = (subject: Subject) => {
    const logFile = join(logs, `${subject}.log`)
    return resources.use(startDenoServer({ project, script, args: [subject], logFile })).ready
  }
  return { holdfast: await start('holdfast'), hono: await start('hono'), deno: await start('deno') }
}

async function measure(server: DenoServer, seconds: number, signal: AbortSignal): Promise<Round> {
  const before = await server.cpuMs()
  const result = await load({ url: `${server.url}/bench`, connections, seconds, signal })
  const cpuMs = await server.cpuMs() - before
  return { ...result, cpuMicroseconds: cpuMs * 1_000 / result.requests }
}
