/** Where the figures come from: a figure without its machine says little. */
import os from 'node:os'
import { join } from 'node:path'
import { resolvePostgres } from '../../local/postgres/binaries.ts'
import type { Progress } from '../../local/progress.ts'
import type { Project } from '../../local/project.ts'
import type { Suite } from './suite.ts'

export interface Machine {
  cores: number
  cpu: string
  memoryMb: number
  os: string
  versions: Record<string, string>
}

/** This machine, with the versions of Deno, Node and what the suite uses. */
export async function thisMachine(project: Project, suite: Suite, progress: Progress): Promise<Machine> {
  const versions: Record<string, string> = { deno: Deno.version.deno, v8: Deno.version.v8 }
  const node = await new Deno.Command('node', { args: ['--version'] }).output()
  versions.node = new TextDecoder().decode(node.stdout).trim().replace(/^v/, '')
  if (suite.postgres) versions.postgresql = String((await resolvePostgres(progress)).version)
  for (const name of suite.packages) versions[name] = await packageVersion(project, name)
  return {
    cores: navigator.hardwareConcurrency,
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    memoryMb: Math.round(os.totalmem() / 1_048_576),
    os: `${os.type()} ${os.release()} ${os.arch()}`,
    versions,
  }
}

async function packageVersion(project: Project, name: string): Promise<string> {
  const text = await Deno.readTextFile(join(project.root, 'node_modules', name, 'package.json'))
  return JSON.parse(text).version
}
