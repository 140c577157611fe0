/** Names the program that listens on a port, so that "address already in use" can say by whom. */
import { run } from './run.ts'

/**
 * For example `node server.js (pid 4711)`; `a program of user 1000` where only that can be seen (other users' processes
 * are hidden from all but root); undefined when nobody listens there.
 */
export async function describePortHolder(port: number): Promise<string | undefined> {
  return Deno.build.os === 'linux' ? await fromProc(port) : await fromLsof(port)
}

async function fromProc(port: number): Promise<string | undefined> {
  const socket = await listeningSocket(port)
  if (socket === undefined) return undefined
  const target = `socket:[${socket.inode}]`
  for await (const { name: pid } of Deno.readDir('/proc')) {
    if (!/^\d+$/.test(pid) || !(await holds(pid, target))) continue
    const line = await Deno.readTextFile(`/proc/${pid}/cmdline`).catch(() => '')
    return `${shortened(line.replaceAll('\0', ' '))} (pid ${pid})`
  }
  return `a program of user ${socket.uid}`
}

/** A row of the kernel's table: number, local address, remote address, state (0A: listening), …, user, …, inode. */
async function listeningSocket(port: number): Promise<{ inode: string; uid: string } | undefined> {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    const text = await Deno.readTextFile(table).catch(() => '')
    for (const row of text.split('\n').slice(1)) {
      const [, local, , state, , , , uid, , inode] = row.trim().split(/\s+/)
      if (state === '0A' && local?.endsWith(suffix) && inode && uid) return { inode, uid }
    }
  }
  return undefined
}

async function holds(pid: string, target: string): Promise<boolean> {
  try {
    for await (const { name } of Deno.readDir(`/proc/${pid}/fd`)) {
      if (await Deno.readLink(`/proc/${pid}/fd/${name}`).catch(() => '') === target) return true
    }
  } catch {
    // Another user's process, or one that has just ended.
  }
  return false
}

async function fromLsof(port: number): Promise<string | undefined> {
  const { stdout } = await run('lsof', ['-nP', `-iTCP:${port}`, '-sTCP:LISTEN', '-Fpc'])
  const pid = /^p(\d+)$/m.exec(stdout)?.[1]
  const name = /^c(.+)$/m.exec(stdout)?.[1]
  return pid === undefined ? undefined : `${name ?? 'a program'} (pid ${pid})`
}

function shortened(line: string): string {
  const text = line.trim()
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}
