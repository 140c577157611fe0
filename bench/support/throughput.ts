/** How often something can be done in a second, many at a time, and what that costs the processor on either side. */
import { readProcessUsage } from '../../local/functions/processUsage.ts'
import type { Cluster } from '../../local/postgres/cluster.ts'
import { findPostmaster } from '../../local/postgres/postmaster.ts'
import { descendantsOf } from '../../tests/support/processes.ts'
import { median } from './statistics.ts'

export interface ThroughputOptions {
  /** How many are on their way at any time. */
  lanes: number
  seconds: number
  /** Whose processor time is asked for. */
  server: Cluster
  signal: AbortSignal
}

export interface Throughput {
  perSecond: number
  /** Of one operation, in milliseconds. */
  p50Ms: number
  /** Processor time for one operation, in microseconds: this process, and all of the server's. */
  clientCpu: number
  serverCpu: number
}

/** Rejects with what an operation failed with: figures of failures are worth nothing. */
export async function throughput(
  operation: (count: number) => Promise<unknown>,
  { lanes, seconds, server, signal }: ThroughputOptions,
): Promise<Throughput> {
  const latencies: number[] = []
  const before = await cpuTimes(server)
  const startedAt = performance.now()
  const end = startedAt + seconds * 1_000
  await Promise.all(Array.from({ length: lanes }, async () => {
    for (let from = performance.now(); from < end;) {
      signal.throwIfAborted()
      await operation(latencies.length)
      const now = performance.now()
      latencies.push(now - from)
      from = now
    }
  }))
  const tookMs = performance.now() - startedAt
  const after = await cpuTimes(server)
  const count = latencies.length
  return {
    perSecond: count * 1_000 / tookMs,
    p50Ms: median(latencies),
    clientCpu: (after.client - before.client) * 1_000 / count,
    serverCpu: (after.server - before.server) * 1_000 / count,
  }
}

/** In milliseconds since the start of each process. */
async function cpuTimes(server: Cluster): Promise<{ client: number; server: number }> {
  const postmaster = await findPostmaster(server.dataDir)
  if (postmaster === undefined) throw new Error('Cannot measure PostgreSQL: it does not run')
  const below = await descendantsOf(postmaster.pid)
  const [client, ...parts] = await Promise.all(
    [Deno.pid, postmaster.pid, ...below.map(({ pid }) => pid)].map(cpuMs),
  )
  return { client: client!, server: parts.reduce((sum, part) => sum + part, 0) }
}

async function cpuMs(pid: number): Promise<number> {
  return (await readProcessUsage(pid))?.cpuMs ?? 0
}
