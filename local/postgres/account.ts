/** The account PostgreSQL runs as: it refuses to run as root, so root's cluster belongs to somebody harmless. */
import { createHash } from 'node:crypto'
import { run } from './run.ts'

/** A Unix account that programs of the cluster are started as. */
export interface Account {
  name: string
  uid: number
  gid: number
}

/**
 * The account root hands the cluster to: `postgres` where there is one, else `nobody`.
 * Undefined for everybody else: an ordinary user's cluster runs as that user.
 */
export async function unprivilegedAccount(): Promise<Account | undefined> {
  if (Deno.uid() !== 0) return undefined
  return await lookUp('postgres') ?? await lookUp('nobody')
}

/** Can the account enter this directory? Asked of the system itself, so access lists and mounts count too. */
export async function canEnter(directory: string, account: Account | undefined): Promise<boolean> {
  const { success } = await run('/bin/sh', ['-c', 'cd -- "$1"', 'sh', directory], { account, cwd: '/' })
  return success
}

/**
 * Where things go that live below a private home (mode 0700), which the unprivileged account cannot reach: a
 * directory below /var/tmp that is named after the caller and the path it stands for.
 */
export function shelterFor(path: string): string {
  const hash = createHash('sha256').update(path).digest('hex').slice(0, 12)
  return `/var/tmp/holdfast-${Deno.uid() ?? 0}-${hash}`
}

/**
 * Creates the shelter, or takes the one that is there if it is ours. /var/tmp is open to all, so a directory
 * (or a link) that somebody else put in its place is refused.
 */
export async function makeShelter(shelter: string): Promise<void> {
  try {
    await Deno.mkdir(shelter, { mode: 0o755 })
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error
  }
  const found = await Deno.lstat(shelter)
  if (!found.isDirectory || found.uid !== Deno.uid()) {
    throw new Deno.errors.PermissionDenied(`${shelter} belongs to another user`)
  }
}

async function lookUp(name: string): Promise<Account | undefined> {
  const [uid, gid] = await Promise.all([run('id', ['-u', name]), run('id', ['-g', name])])
  if (!uid.success || !gid.success) return undefined
  return { name, uid: Number(uid.stdout), gid: Number(gid.stdout) }
}
