/**
 * What runs in a local directory: one file that says what, and one lock that says whether. The lock is the truth,
 * since the operating system frees it however its holder died; the file tells the other commands whom to talk to.
 */
import { join } from 'node:path'
import { z } from 'zod'

const failureSchema = z.object({
  message: z.string(),
  where: z.string().optional(),
  fix: z.string().optional(),
})

const reportSchema = z.object({
  apiUrl: z.string(),
  functionsUrl: z.string(),
  paymentsUrl: z.string(),
  databaseUrl: z.string(),
  publishableKey: z.string(),
  secretKey: z.string(),
  jwtSecret: z.string(),
  anonKey: z.string(),
  serviceRoleKey: z.string(),
  /** One line about the database server. */
  database: z.string(),
  demoUsers: z.array(z.object({ email: z.string(), password: z.string() })),
  isolates: z.number(),
  /** A product that the snippets can order; absent when the database has none. */
  sku: z.string().optional(),
  /** From `npm start` to answering requests, with packages installed. */
  readySeconds: z.number(),
  /** The server is a private one of ours, which a reset may throw away. */
  privateDatabase: z.boolean(),
})

const stateSchema = z.object({
  pid: z.number().int().positive(),
  /** When the process started, as the operating system tells it: a pid alone may have been given to another one. */
  processStart: z.string(),
  mode: z.enum(['foreground', 'detached']),
  phase: z.enum(['starting', 'ready', 'resetting', 'failed', 'stopping']),
  /** Counts the times the stack became ready, or failed to, in this process: each reset adds one. */
  generation: z.number().int(),
  startedAt: z.string(),
  /** What the latest reset failed of; a successful one clears it. */
  resetFailure: failureSchema.optional(),
  report: reportSchema.optional(),
})

export type StackState = z.infer<typeof stateSchema>
export type StackReport = z.infer<typeof reportSchema>

/** Held by the one process that runs the stack of a local directory; closing it gives it back. */
export interface StackLock {
  release(): void
}

/** The lock of a local directory, or undefined while another process holds it. Creates the directory. */
export async function lockStack(localDir: string): Promise<StackLock | undefined> {
  await Deno.mkdir(localDir, { recursive: true })
  const file = await Deno.open(join(localDir, 'lock'), { create: true, write: true, mode: 0o600 })
  if (await file.tryLock(true)) return { release: () => file.close() }
  file.close()
  return undefined
}

/** The state of the stack that runs in this directory; undefined when none does, whatever an old file says. */
export async function readState(localDir: string): Promise<StackState | undefined> {
  const state = await readStateFile(localDir)
  if (state === undefined) return undefined
  return await processStartOf(state.pid) === state.processStart ? state : undefined
}

/**
 * As `readState`, but waits (at most `limitMs`) until the stack is neither starting, resetting nor stopping.
 * `onChange` is told every state on the way.
 */
export async function readSettledState(
  localDir: string,
  { limitMs = 120_000, since = 0, onChange }: {
    limitMs?: number
    /** Only a later generation, or a failure to get there, counts as settled. */
    since?: number
    onChange?: (state: StackState) => void
  } = {},
): Promise<StackState | undefined> {
  const deadline = Date.now() + limitMs
  let phase: StackState['phase'] | undefined
  for (;;) {
    const state = await readState(localDir)
    if (state === undefined) return undefined
    if (state.phase !== phase) onChange?.(state)
    phase = state.phase
    const settled = (phase === 'failed' || phase === 'ready') && state.generation > since
    if (settled || Date.now() > deadline) return state
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** Waits until the process of a state has ended; false when it has not within the limit. */
export async function processEnded({ pid, processStart }: StackState, limitMs: number): Promise<boolean> {
  const deadline = Date.now() + limitMs
  while (await processStartOf(pid) === processStart) {
    if (Date.now() > deadline) return false
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return true
}

/** Replaces the state at once: a reader sees the old one or the new one, never a part. Readable by its owner only. */
export async function writeState(localDir: string, state: StackState): Promise<void> {
  const temporary = join(localDir, `state.${state.pid}.tmp`)
  await Deno.writeTextFile(temporary, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 })
  await Deno.rename(temporary, stateFile(localDir))
}

export async function removeState(localDir: string): Promise<void> {
  await Deno.remove(stateFile(localDir)).catch(ignoreNotFound)
}

/** A token for when a process started, or undefined when there is no such process (a zombie is none). */
export async function processStartOf(pid: number): Promise<string | undefined> {
  if (Deno.build.os === 'linux') {
    const stat = await Deno.readTextFile(`/proc/${pid}/stat`).catch(() => undefined)
    // The second field, the program's name, may hold spaces and brackets: count from its end.
    const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields === undefined || fields[0] === 'Z' ? undefined : fields[19]
  }
  const { success, stdout } = await new Deno.Command('ps', { args: ['-o', 'lstart=', '-p', String(pid)] })
    .output()
  return success ? new TextDecoder().decode(stdout).trim() : undefined
}

async function readStateFile(localDir: string): Promise<StackState | undefined> {
  const text = await Deno.readTextFile(stateFile(localDir)).catch(ignoreNotFound)
  if (text === undefined) return undefined
  try {
    return stateSchema.parse(JSON.parse(text))
  } catch {
    // Written by another version, or damaged: it describes nothing that we could use.
    return undefined
  }
}

function stateFile(localDir: string): string {
  return join(localDir, 'state.json')
}

function ignoreNotFound(error: unknown): undefined {
  if (error instanceof Deno.errors.NotFound) return undefined
  throw error
}
