/**
 * supa_audit, the peer: SQL on GitHub, of which nothing is kept here. Whoever wants the comparison names a checkout of
 * it, or its SQL file, after `--supa-audit`.
 */
import { join } from 'node:path'
import { LocalError } from '../../local/errors.ts'
import type { Bench } from '../support/suite.ts'

const repository = 'https://github.com/supabase/supa_audit'

/** These two work only inside `create extension`, and only say what pg_dump takes along. */
const dumpMarks = /^select pg_catalog\.pg_extension_config_dump\(.*\);$/gm

export interface SupaAudit {
  /** Of its file's name. */
  version: string
  /** Runs as a script where its extension cannot be installed; otherwise unchanged. */
  script: string
}

/** Undefined, with a remark how to get it, when none was named. Rejects with a `LocalError` for what is none. */
export async function readSupaAudit({ supaAudit, progress }: Bench): Promise<SupaAudit | undefined> {
  if (supaAudit === undefined) {
    progress.info(
      `Without supa_audit to compare with: git clone ${repository}, then add --supa-audit and its path.`,
    )
    return undefined
  }
  const file = await scriptIn(supaAudit)
  const text = await Deno.readTextFile(file).catch((cause) => {
    throw notThere(supaAudit, cause)
  })
  if (!text.includes('audit.record_version')) throw notThere(supaAudit)
  const [, version = 'unknown'] = /--([\d.]+)\.sql$/.exec(file) ?? []
  progress.info(`Comparing with supa_audit ${version}`)
  return { version, script: text.replaceAll(dumpMarks, '') }
}

/** A checkout says in its control file which of its scripts is the whole of the newest version. */
async function scriptIn(path: string): Promise<string> {
  const info = await Deno.stat(path).catch((cause) => {
    throw notThere(path, cause)
  })
  if (info.isFile) return path
  const control = await Deno.readTextFile(join(path, 'supa_audit.control')).catch((cause) => {
    throw notThere(path, cause)
  })
  const [, version] = /^default_version\s*=\s*'([\d.]+)'/m.exec(control) ?? []
  return join(path, `supa_audit--${version}.sql`)
}

function notThere(path: string, cause?: unknown): LocalError {
  return new LocalError(`Cannot read supa_audit: ${path} is neither a checkout of it nor its SQL file`, {
    where: 'npm run bench -- audit --supa-audit',
    fix: `Clone ${repository} and name its folder, or leave the option out to measure without it.`,
    cause,
  })
}
