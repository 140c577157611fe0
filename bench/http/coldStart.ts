/**
 * How soon a new isolate of `orders` is there: what its imports take, beside those of its packages alone, and how
 * long the host's first answer takes from the start of the process. The code cache is warm, as it is for every
 * isolate but the very first.
 */
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { platformEnvironment } from '../../local/functions/environment.ts'
import { startFunctionsHost } from '../../local/functions/host.ts'
import { localKeys } from '../../local/keys.ts'
import type { Project } from '../../local/project.ts'
import { denoCommand } from '../support/denoCommand.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'

const name = 'cold start'
const packages = ['hono', 'zod', 'postgres', 'jose'] as const
const rounds = 11

export const coldStart: Measure = {
  name,
  async run(bench) {
    await measureImports(bench)
    await measureFirstAnswer(bench)
  },
}

async function measureImports({ project, report, signal }: Bench): Promise<void> {
  const measure = `${name} imports`
  const subjects = ['orders', ...packages]
  const orders = pathToFileURL(join(project.functionsDir, 'orders/index.ts')).href
  const time = (subject: string) => importTime(project, subject === 'orders' ? orders : subject, signal)
  await interleaved(subjects, 1, time)
  const times = await interleaved(subjects, rounds, time)
  for (const [subject, all] of times) report.figure({ measure, subject, value: median(all), unit: 'ms' })
  report.verdict({ measure, against: 'limit in ms', ratio: median(times.get('orders')!), aim: '<100' })
}

async function importTime(project: Project, module: string, signal: AbortSignal): Promise<number> {
  const script = fileURLToPath(new URL('./importTime.ts', import.meta.url))
  const [program, ...args] = denoCommand({ project, script, args: [module] })
  const { success, stdout, stderr } = await new Deno.Command(program, {
    args,
    cwd: project.root,
    stdin: 'null',
    signal,
  }).output()
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes))
  if (!success) throw new Error(`Cannot import ${module}: ${err}`)
  return Number(out)
}

async function measureFirstAnswer({ project, report }: Bench): Promise<void> {
  const times: number[] = []
  for (let round = 0; round < rounds; round++) times.push(await firstAnswerTime(project))
  report.figure({ measure: `${name} first answer`, subject: 'orders', value: median(times), unit: 'ms' })
}

/** From a host without isolates to the answer of one. Asking without a token needs neither database nor network. */
async function firstAnswerTime(project: Project): Promise<number> {
  const host = await startFunctionsHost({
    project,
    jwtSecret: localKeys.jwtSecret,
    env: await platformEnvironment({
      url: 'http://127.0.0.1',
      databaseUrl: 'postgresql://nobody@127.0.0.1:1/none',
      publishableKey: localKeys.publishable,
      secretKey: localKeys.secret,
      jwtSecret: localKeys.jwtSecret,
    }),
  })
  try {
    const startedAt = performance.now()
    const response = await host.fetch(new Request('http://127.0.0.1/orders'))
    const text = await response.text()
    const ms = performance.now() - startedAt
    if (response.status !== 401) {
      throw new Error(`Cannot start orders: it answered ${response.status} ${text}`)
    }
    return ms
  } finally {
    await host.close()
  }
}
