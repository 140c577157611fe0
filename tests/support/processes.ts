/** Which processes run, and which of them a process has started: to find what was left behind. */

export interface ProcessInfo {
  pid: number
  parent: number
  /** Changes when the pid is given to another process; says nothing else. */
  startedAt: string
  command: string
}

/** All processes of this machine that can be seen. */
export async function listProcesses(): Promise<ProcessInfo[]> {
  return Deno.build.os === 'linux' ? await readProc() : await askPs()
}

/** The processes below `pid`, its children's children too. */
export async function descendantsOf(pid: number): Promise<ProcessInfo[]> {
  const all = await listProcesses()
  const found: ProcessInfo[] = []
  const parents = [pid]
  for (let parent = parents.shift(); parent !== undefined; parent = parents.shift()) {
    for (const process of all) {
      if (process.parent !== parent) continue
      found.push(process)
      parents.push(process.pid)
    }
  }
  return found
}

/** What tells a process from a later one with the same pid; undefined when there is none. */
export async function startOf(pid: number): Promise<string | undefined> {
  if (Deno.build.os === 'linux') return (await readStat(pid))?.startedAt
  return (await listProcesses()).find((process) => process.pid === pid)?.startedAt
}

async function readProc(): Promise<ProcessInfo[]> {
  const processes: ProcessInfo[] = []
  for await (const entry of Deno.readDir('/proc')) {
    if (!/^\d+$/.test(entry.name)) continue
    const process = await readStat(Number(entry.name))
    if (process) processes.push(process)
  }
  return processes
}

async function readStat(pid: number): Promise<ProcessInfo | undefined> {
  try {
    const stat = await Deno.readTextFile(`/proc/${pid}/stat`)
    // `pid (name, which may hold anything) state parent … starttime`: fields count from the last parenthesis.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const [state, parent, startedAt] = [fields[0], fields[1], fields[19]]
    if (state === 'Z' || parent === undefined || startedAt === undefined) return undefined
    const command = (await Deno.readTextFile(`/proc/${pid}/cmdline`)).replaceAll('\0', ' ').trim()
    return { pid, parent: Number(parent), startedAt, command }
  } catch {
    // It ended while we looked.
    return undefined
  }
}

async function askPs(): Promise<ProcessInfo[]> {
  const { stdout } = await new Deno.Command('ps', {
    args: ['-axo', 'pid=,ppid=,stat=,lstart=,command='],
    env: { LC_ALL: 'C' },
  }).output()
  const line = /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(\w+\s+\w+\s+\d+\s+[\d:]+\s+\d+)\s+(.*)$/
  const processes: ProcessInfo[] = []
  for (const text of new TextDecoder().decode(stdout).split('\n')) {
    const [, pid, parent, state, startedAt, command] = line.exec(text) ?? []
    if (pid === undefined || parent === undefined || startedAt === undefined || state?.startsWith('Z')) {
      continue
    }
    processes.push({ pid: Number(pid), parent: Number(parent), startedAt, command: command ?? '' })
  }
  return processes
}
