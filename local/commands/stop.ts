/** `npm run stop`: ends the stack of this folder, and whatever a killed one left behind. The data stay. */
import type { Command } from '../main.ts'
import { terminalProgress } from '../progress.ts'
import { stopStack } from '../running/stopping.ts'
import { print } from '../terminal/output.ts'
import { parseOptions } from './options.ts'

const usage = `
npm run stop

Stops functions, gateway and database. The data stay in .local; npm run reset throws them away.
Exit code 0, also when nothing runs.
`

const command: Command = {
  usage,
  async run(project, args) {
    parseOptions({ args, usage, options: {} })
    const progress = await terminalProgress()
    progress.step('Stopping')
    const stopped = await stopStack(project)
    progress.done(stopped ? 'Stopped' : 'Nothing was running')
    if (stopped) print(`The data stay in ${project.localDir}. npm start goes on with them.`)
    return 0
  },
}
export default command
