/** What a process uses, asked from outside, since a process in trouble cannot answer. */

export interface ProcessUsage {
  /** Memory of its own in bytes: heap, ArrayBuffers, stacks; not the mapped program. */
  memoryBytes: number
  /** CPU time of all threads since its start, in milliseconds. */
  cpuMs: number
}

/** Linux counts in ticks of 10 ms wherever Deno runs. */
const tickMs = 10

/** Undefined once the process is gone. */
export async function readProcessUsage(pid: number): Promise<ProcessUsage | undefined> {
  try {
    return Deno.build.os === 'linux' ? await readProc(pid) : await askPs(pid)
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined
    // Reading below /proc fails with ESRCH when the process ends in between.
    if (error instanceof Error && /No such process/.test(error.message)) return undefined
    throw error
  }
}

async function readProc(pid: number): Promise<ProcessUsage> {
  const [stat, status] = await Promise.all([
    Deno.readTextFile(`/proc/${pid}/stat`),
    Deno.readTextFile(`/proc/${pid}/status`),
  ])
  // The command name may hold spaces and parentheses; the numbers start after the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticks = Number(fields[11]) + Number(fields[12])
  const kilobytes = Number(/^RssAnon:\s+(\d+)/m.exec(status)?.[1] ?? 0)
  return { memoryBytes: kilobytes * 1024, cpuMs: ticks * tickMs }
}

async function askPs(pid: number): Promise<ProcessUsage | undefined> {
  const { success, stdout } = await new Deno.Command('ps', {
    args: ['-o', 'rss=,time=', '-p', String(pid)],
    stdin: 'null',
    stderr: 'null',
  }).output()
  const found = /^\s*(\d+)\s+(?:(\d+)-)?([\d:.]+)/.exec(new TextDecoder().decode(stdout))
  if (!success || found === null) return undefined
  const seconds = (found[3] ?? '0').split(':').reduce((total, part) => total * 60 + Number(part), 0)
  return {
    memoryBytes: Number(found[1]) * 1024,
    cpuMs: (Number(found[2] ?? 0) * 86_400 + seconds) * 1000,
  }
}
